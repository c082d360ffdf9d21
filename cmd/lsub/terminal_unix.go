//go:build unix

package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/lsub/lsub/guest"
)

// ownTerminal is our controlling terminal. It is a [guest.Terminal].
type ownTerminal struct {
	fd     int
	wake   [2]int // a pipe: a byte in it ends a wait for keys
	status *statusLine

	mu      sync.Mutex
	changed sync.Cond   // taken or closed
	taken   *term.State // of before, while a command has the terminal's keys
	raw     bool        // what is written is shown as it is
	ahead   []byte      // lines that were typed before it was taken
	gone    bool        // hung up
	closed  bool
	hups    chan os.Signal

	reading sync.Mutex // held by the read that is under way
}

func openOwnTerminal(status *statusLine) (*ownTerminal, error) {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := &ownTerminal{fd: fd, status: status, hups: make(chan os.Signal, 1)}
	t.changed.L = &t.mu
	if err := unix.Pipe(t.wake[:]); err != nil {
		unix.Close(fd)
		return nil, err
	}
	for _, fd := range t.wake {
		unix.CloseOnExec(fd)
		unix.SetNonblock(fd, true)
	}
	signal.Notify(t.hups, syscall.SIGHUP)
	go t.watchHangUps()
	return t, nil
}

// watchHangUps ends Read when the terminal is hung up, also where it is not taken.
func (t *ownTerminal) watchHangUps() {
	for range t.hups {
		t.mu.Lock()
		if _, err := unix.IoctlGetTermios(t.fd, ioctlGetTermios); err != nil && !t.closed {
			t.gone = true
			t.changed.Broadcast()
			unix.Write(t.wake[1], []byte{0})
		}
		t.mu.Unlock()
	}
}

// is tells whether a stream is this terminal: only of that may we ask for the foreground
// process group.
func (t *ownTerminal) is(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil
}

func (t *ownTerminal) size(otherwise func() guest.Size) guest.Size {
	if cols, rows, err := term.GetSize(t.fd); err == nil && cols > 0 && rows > 0 {
		return guest.Size{Rows: uint16(rows), Cols: uint16(cols)}
	}
	return otherwise()
}

// Take puts the terminal into raw mode, and lets Read read. In the background this stops us,
// as it should. Without rawOutput a new line still goes to the left edge: other programs may
// write to the terminal too.
func (t *ownTerminal) Take(rawOutput bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.taken != nil && t.raw == rawOutput {
		return nil
	}
	before := t.taken
	if before == nil {
		t.status.clear() // while a line still ends as it should
		state, err := term.GetState(t.fd)
		if err != nil {
			return err
		}
		before = state
		t.readAhead()
	}
	if err := makeRaw(t.fd, rawOutput); err != nil {
		return err
	}
	t.taken, t.raw = before, rawOutput
	t.status.setRaw(rawOutput)
	t.changed.Broadcast()
	return nil
}

// maxAhead bounds how often [ownTerminal.readAhead] reads: a terminal that is hung up has an
// end of file each time.
const maxAhead = 1000

// readAhead reads the lines that were typed up to now as lines: an end of file among them
// would be none in raw mode.
func (t *ownTerminal) readAhead() {
	mode, err := unix.IoctlGetTermios(t.fd, ioctlGetTermios)
	if err != nil || mode.Lflag&unix.ICANON == 0 {
		return
	}
	line := make([]byte, 4096)
	for range maxAhead {
		var ready unix.FdSet
		ready.Set(t.fd)
		if n, err := unix.Select(t.fd+1, &ready, nil, nil, &unix.Timeval{}); n <= 0 || err != nil {
			return
		}
		n, err := unix.Read(t.fd, line)
		if n < 0 || err != nil {
			return
		}
		if t.ahead = append(t.ahead, line[:n]...); n == 0 {
			t.ahead = append(t.ahead, mode.Cc[unix.VEOF])
		}
	}
}

// makeRaw is [term.MakeRaw], which may leave the processing of output as it is.
func makeRaw(fd int, rawOutput bool) error {
	mode, err := unix.IoctlGetTermios(fd, ioctlGetTermios)
	if err != nil {
		return err
	}
	mode.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Cflag &^= unix.CSIZE | unix.PARENB
	mode.Cflag |= unix.CS8
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	if rawOutput {
		mode.Oflag &^= unix.OPOST
	} else {
		mode.Oflag |= unix.OPOST | unix.ONLCR
	}
	return unix.IoctlSetTermios(fd, ioctlSetTermios, mode)
}

// GiveBack ends a Read under way before it has read, and undoes Take.
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
	unix.Write(t.wake[1], []byte{0})
	t.reading.Lock()
	defer t.reading.Unlock()
	unix.Read(t.wake[0], make([]byte, 1))
	term.Restore(t.fd, before)
	t.status.setRaw(false)
}

func (t *ownTerminal) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveBack()
	if !t.closed {
		t.closed = true
		signal.Stop(t.hups)
		close(t.hups)
		t.changed.Broadcast()
		for _, fd := range []int{t.fd, t.wake[0], t.wake[1]} {
			unix.Close(fd)
		}
	}
}

func (t *ownTerminal) Read(p []byte) (int, error) {
	for {
		t.mu.Lock()
		for t.taken == nil && !t.closed && !t.gone {
			t.changed.Wait()
		}
		if t.closed || t.gone {
			t.mu.Unlock()
			return 0, io.EOF
		}
		if len(t.ahead) > 0 {
			defer t.mu.Unlock()
			n := copy(p, t.ahead)
			t.ahead = t.ahead[n:]
			return n, nil
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

// readKeys waits for keys, or until it is woken: then it returns 0, nil. It uses select, the
// one call that waits for terminals on every system.
func (t *ownTerminal) readKeys(p []byte) (int, error) {
	var ready unix.FdSet
	ready.Set(t.fd)
	ready.Set(t.wake[0])
	_, err := unix.Select(max(t.fd, t.wake[0])+1, &ready, nil, nil, nil)
	switch {
	case errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, err
	case ready.IsSet(t.wake[0]):
		return 0, nil
	}
	n, err := unix.Read(t.fd, p)
	switch {
	case errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write shows p. It does not wait for Take.
func (t *ownTerminal) Write(p []byte) (int, error) {
	for done := 0; ; {
		n, err := unix.Write(t.fd, p[done:])
		if n > 0 {
			done += n
		}
		if done == len(p) || err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return done, err
		}
		if errors.Is(err, unix.EAGAIN) { // somebody has made the terminal non-blocking
			var ready unix.FdSet
			ready.Set(t.fd)
			unix.Select(t.fd+1, nil, &ready, nil, nil)
		}
	}
}

func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }

// catchSIGPIPE makes broken pipes errors, until it is undone.
func catchSIGPIPE() (undo func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGPIPE)
	return func() { signal.Stop(c) }
}
