package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// The code page of UTF-8.
const utf8CodePage = 65001

// openConsole has the console show what Linux' programs write: UTF-8, and the sequences of a
// terminal. It returns what undoes that. Where stdout is no console, it does nothing.
func openConsole() (undo func()) {
	h := windows.Handle(os.Stdout.Fd())
	var mode uint32
	if windows.GetConsoleMode(h, &mode) != nil {
		return func() {}
	}
	const terminal = windows.ENABLE_PROCESSED_OUTPUT | windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING | windows.DISABLE_NEWLINE_AUTO_RETURN
	windows.SetConsoleMode(h, mode|terminal) // an old console shows the sequences as text
	in, out := codePages()
	setCodePages(utf8CodePage, utf8CodePage)
	return func() {
		setCodePages(in, out)
		windows.SetConsoleMode(h, mode)
	}
}

func codePages() (in, out uint32) {
	in, _ = windows.GetConsoleCP()
	out, _ = windows.GetConsoleOutputCP()
	return in, out
}

// setCodePages leaves those that are 0 as they are.
func setCodePages(in, out uint32) {
	if in != 0 {
		windows.SetConsoleCP(in)
	}
	if out != 0 {
		windows.SetConsoleOutputCP(out)
	}
}
