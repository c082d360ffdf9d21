package main

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/windows"
	"golang.org/x/term"

	"github.com/lsub/lsub/guest"
)

// ownTerminal is the console that we are attached to. It is a [guest.Terminal].
type ownTerminal struct {
	in, out windows.Handle // CONIN$ and CONOUT$
	wake    windows.Handle // an event that ends a wait for keys
	outMode uint32         // of out before
	status  *statusLine

	mu      sync.Mutex
	changed sync.Cond   // taken or closed
	taken   *term.State // of before, while a command has the console's keys
	closed  bool

	reading sync.Mutex // held by the read that is under way
}

func openOwnTerminal(status *statusLine) (_ *ownTerminal, err error) {
	t := &ownTerminal{status: status}
	t.changed.L = &t.mu
	if t.in, err = openConsoleFile("CONIN$"); err != nil {
		return nil, err
	}
	if t.out, err = openConsoleFile("CONOUT$"); err != nil {
		windows.CloseHandle(t.in)
		return nil, err
	}
	if t.wake, err = windows.CreateEvent(nil, 0, 0, nil); err != nil {
		windows.CloseHandle(t.in)
		windows.CloseHandle(t.out)
		return nil, err
	}
	if windows.GetConsoleMode(t.out, &t.outMode) == nil {
		windows.SetConsoleMode(t.out, t.outMode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING)
	}
	return t, nil
}

func openConsoleFile(name string) (windows.Handle, error) {
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
}

// is tells whether a stream is the console: a process has one at most.
func (t *ownTerminal) is(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (t *ownTerminal) size(otherwise func() guest.Size) guest.Size {
	if cols, rows, err := term.GetSize(int(t.out)); err == nil && cols > 0 && rows > 0 {
		return guest.Size{Rows: uint16(rows), Cols: uint16(cols)}
	}
	return otherwise()
}

// Take puts the console into raw mode, and lets Read read. What is written is shown as ever:
// a console goes to the left edge at a new line only where it is told so.
func (t *ownTerminal) Take(bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken != nil || t.closed {
		return nil
	}
	before, err := term.MakeRaw(int(t.in))
	if err != nil {
		return err
	}
	t.taken = before
	t.status.setRaw(true)
	t.changed.Broadcast()
	return nil
}

// GiveBack ends a wait for keys, and undoes Take.
func (t *ownTerminal) GiveBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveBack()
}

func (t *ownTerminal) giveBack() {
	if t.taken == nil {
		return
	}
	before := t.taken
	t.taken = nil
	windows.SetEvent(t.wake)
	t.reading.Lock()
	defer t.reading.Unlock()
	windows.ResetEvent(t.wake)
	term.Restore(int(t.in), before)
	t.status.setRaw(false)
}

func (t *ownTerminal) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveBack()
	if !t.closed {
		t.closed = true
		t.changed.Broadcast()
		windows.SetConsoleMode(t.out, t.outMode)
		for _, h := range []windows.Handle{t.in, t.out, t.wake} {
			windows.CloseHandle(h)
		}
	}
}

func (t *ownTerminal) Read(p []byte) (int, error) {
	for {
		t.mu.Lock()
		for t.taken == nil && !t.closed {
			t.changed.Wait()
		}
		if t.closed {
			t.mu.Unlock()
			return 0, io.EOF
		}
		t.reading.Lock()
		t.mu.Unlock()
		n, err := t.readKeys(p)
		t.reading.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// readKeys waits for keys, or until it is woken: then it returns 0, nil.
func (t *ownTerminal) readKeys(p []byte) (int, error) {
	const keys = 1 // index of what was waited for
	which, err := windows.WaitForMultipleObjects([]windows.Handle{t.wake, t.in}, false, windows.INFINITE)
	if err != nil || which != windows.WAIT_OBJECT_0+keys {
		return 0, err
	}
	var n uint32
	err = windows.ReadFile(t.in, p, &n, nil)
	return int(n), err
}

// Write shows p. It does not wait for Take.
func (t *ownTerminal) Write(p []byte) (int, error) {
	var n uint32
	err := windows.WriteFile(t.out, p, &n, nil)
	return int(n), err
}

func isBrokenPipe(err error) bool {
	return errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, windows.ERROR_NO_DATA)
}

// catchSIGPIPE does nothing: on Windows broken pipes are errors.
func catchSIGPIPE() (undo func()) { return func() {} }
