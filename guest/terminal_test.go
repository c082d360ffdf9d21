package guest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
)

// fakeTerminal notes what is asked of it. Its keys are keys, while it is taken.
type fakeTerminal struct {
	bytes.Buffer
	keys  chan string
	calls []string
	err   error
}

func (f *fakeTerminal) Read(p []byte) (int, error) {
	k, ok := <-f.keys
	if !ok {
		return 0, errors.New("it is hung up")
	}
	return copy(p, k), nil
}

func (f *fakeTerminal) Take(raw bool) error {
	f.calls = append(f.calls, map[bool]string{false: "take", true: "take all"}[raw])
	return f.err
}

func (f *fakeTerminal) GiveBack() { f.calls = append(f.calls, "give back") }

func TestTerminal(t *testing.T) {
	terminal := &fakeTerminal{keys: make(chan string, 1)}
	terminal.keys <- "abcdef"
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
		r.Next()
		w.Send(FrameKeysWindow, []byte{0, 0, 0, 9})
		// The end of stdin and the keys are sent side by side.
		var keys []string
		for stdinEnded := false; !stdinEnded || len(keys) < 2; {
			got, p, err := r.Next()
			switch {
			case err == nil && got == FrameStdin && len(p) == 0 && !stdinEnded:
				stdinEnded = true
			case err == nil && got == FrameKeys:
				if keys = append(keys, string(p)); len(keys) == 1 {
					close(terminal.keys)
				}
			default:
				t.Errorf("frame %d %q, %v", got, p, err)
				return
			}
		}
		if keys[0] != "abcdef" || keys[1] != "" {
			t.Errorf("keys %q, want abcdef and their end", keys)
		}
		for _, ask := range []Ask{AskKeys, AskAll, AskNothing} {
			w.Send(FrameAsk, []byte{byte(ask)})
		}
		w.Send(FrameScreen, []byte("drawn"))
		w.Send(FrameStdout, []byte("piped"))
		w.SendMessage(FrameExit, &guestv1.Exit{})
	}), "1")
	var out bytes.Buffer
	if _, err := c.Exec(t.Context(), &guestv1.Exec{}, Stdio{Stdout: &out, Terminal: terminal}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "piped" || terminal.String() != "drawn" {
		t.Errorf("stdout %q, terminal %q", &out, terminal)
	}
	if got := len(terminal.calls); got != 3 || terminal.calls[0] != "take" || terminal.calls[1] != "take all" || terminal.calls[2] != "give back" {
		t.Errorf("calls %q", terminal.calls)
	}
}

// A terminal that cannot be taken is one that is gone, for the command.
func TestTerminalNotTaken(t *testing.T) {
	terminal := &fakeTerminal{keys: make(chan string), err: errors.New("in the background")}
	defer close(terminal.keys)
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
		r.Next()
		w.Send(FrameAsk, []byte{byte(AskKeys)})
		for {
			got, p, err := r.Next()
			if err != nil {
				t.Errorf("no hang-up: %v", err)
				return
			}
			if got == FrameKeys && len(p) == 0 {
				break
			}
		}
		w.SendMessage(FrameExit, &guestv1.Exit{Code: 3})
	}), "1")
	if exit, err := c.Exec(t.Context(), &guestv1.Exec{}, Stdio{Stdout: io.Discard, Terminal: terminal}); err != nil || exit.Code != 3 {
		t.Error(exit, err)
	}
}

// A guest has no terminal of the host that it was not given, and asks for nothing unknown.
func TestTerminalRefused(t *testing.T) {
	for name, c := range map[string]struct {
		t        FrameType
		p        []byte
		terminal Terminal
	}{
		"screen without a terminal": {FrameScreen, []byte("x"), nil},
		"ask without a terminal":    {FrameAsk, []byte{1}, nil},
		"window without a terminal": {FrameKeysWindow, []byte{0, 0, 0, 1}, nil},
		"unknown ask":               {FrameAsk, []byte{3}, &fakeTerminal{keys: make(chan string)}},
		"empty ask":                 {FrameAsk, nil, &fakeTerminal{keys: make(chan string)}},
		"short window":              {FrameKeysWindow, []byte{1}, &fakeTerminal{keys: make(chan string)}},
	} {
		client := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
			r.Next()
			go func() {
				for {
					if _, _, err := r.Next(); err != nil {
						return
					}
				}
			}()
			w.Send(c.t, c.p)
			w.SendMessage(FrameExit, &guestv1.Exit{})
		}), "1")
		var broken frameError
		if _, err := client.Exec(t.Context(), &guestv1.Exec{}, Stdio{Terminal: c.terminal}); !errors.As(err, &broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
