package guest

import (
	"io"

	"github.com/lsub/lsub/guest/guestv1"
)

// Terminal is a terminal of the host that a command has as its /dev/tty, beside streams that
// are pipes. Programs of the host may use it at the same time: its keys are the command's
// only between Take and GiveBack, which are not called concurrently.
type Terminal interface {
	// Read waits for keys while the terminal is taken, and else until it is. io.EOF says
	// that there is no terminal any more.
	io.Reader
	// Write shows what the command writes to it, also while it is not taken.
	io.Writer
	// Take has the terminal pass keys on as they are typed, and with rawOutput show bytes as
	// they are written. Where it is taken already, only that changes. An error is one that
	// a program of the host would get if it read.
	Take(rawOutput bool) error
	// GiveBack has it be as it was. Keys that were not read are somebody else's.
	GiveBack()
}

// screen is the host's terminal of a stream.
type screen struct {
	w        *Writer
	terminal Terminal
	keys     *pump
}

func newScreen(w *Writer, t Terminal, done <-chan struct{}) *screen {
	return &screen{w, t, newPump(w, FrameKeys, endsQuietly{t}, done)}
}

// take handles a frame about the terminal.
func (s *screen) take(t FrameType, p []byte) error {
	switch {
	case s == nil:
		return unexpected(t)
	case t == FrameKeysWindow:
		return s.keys.granted(p)
	case t == FrameScreen:
		s.terminal.Write(p) // whether it is still there, is no matter of the pipes
	case len(p) != 1 || Ask(p[0]) > AskAll:
		return frameError("an ask frame has one byte, from 0 to 2")
	case Ask(p[0]) == AskNothing:
		s.terminal.GiveBack()
	case s.terminal.Take(Ask(p[0]) == AskAll) != nil:
		return s.w.Send(FrameKeys, nil) // as if it were gone
	}
	return nil
}

// endsQuietly is a terminal's keys: one that breaks is one that is hung up.
type endsQuietly struct{ r io.Reader }

func (e endsQuietly) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// Pipes says which of a command's streams are pipes beside its terminal.
type Pipes struct{ Stdin, Stdout, Stderr bool }

// Message returns p as the protocol has it.
func (p Pipes) Message() *guestv1.Pipes {
	return &guestv1.Pipes{Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr}
}
