package main

import (
	"bufio"
	"fmt"
	"os"
	"unsafe"

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

var getConsoleProcessList = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetConsoleProcessList")

// holdWindow waits for Enter where this program alone has the console. The Explorer has opened
// that window for it, and closes it when it ends: nobody could read what went wrong.
func holdWindow() {
	var pids [2]uint32
	// It writes at most as many numbers as it is told, and returns how many there are.
	n, _, _ := getConsoleProcessList.Call(uintptr(unsafe.Pointer(&pids[0])), uintptr(len(pids)))
	var mode uint32
	if n != 1 || windows.GetConsoleMode(windows.Handle(os.Stdin.Fd()), &mode) != nil {
		return
	}
	fmt.Fprint(os.Stderr, "Press Enter to close this window.")
	bufio.NewReader(os.Stdin).ReadString('\n')
}
