package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
)

// pipeDialer connects each dial to a function that plays the guest.
type pipeDialer func(r *Reader, w *Writer, conn net.Conn)

func (d pipeDialer) Dial(context.Context, uint32) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		d(NewReader(theirs), NewWriter(theirs), theirs)
	}()
	return ours, nil
}

func window(w *Writer, n uint32) {
	w.Send(FrameWindow, binary.BigEndian.AppendUint32(nil, n))
}

func TestExec(t *testing.T) {
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
		var req guestv1.StreamRequest
		if err := r.Expect(FrameRequest, &req); err != nil || req.Version != "1" {
			t.Errorf("request: %v, version %q", err, req.Version)
		}
		window(w, 3) // less than there is, so that the host must wait for more
		var in []byte
		for {
			typ, p, err := r.Next()
			if err != nil || typ != FrameStdin {
				t.Errorf("frame %d: %v", typ, err)
				return
			}
			if len(p) == 0 {
				break
			}
			if in = append(in, p...); len(in)%3 == 0 {
				window(w, 3)
			}
		}
		w.Send(FrameStdout, in)
		w.Send(FrameStderr, []byte("oops"))
		w.SendMessage(FrameExit, &guestv1.Exit{Signal: 9})
	}), "1")
	var out, errOut bytes.Buffer
	exit, err := c.Exec(t.Context(), &guestv1.Exec{}, Stdio{Stdin: strings.NewReader("some \x00 input"), Stdout: &out, Stderr: &errOut})
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != "some \x00 input" || errOut.String() != "oops" || exit.Status() != 137 {
		t.Errorf("stdout %q, stderr %q, status %d", out.String(), errOut.String(), exit.Status())
	}
}

func TestExecRefused(t *testing.T) {
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
		r.Next()
		w.SendMessage(FrameError, &guestv1.Error{Code: guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER, Message: "no user", Hint: "make one"})
	}), "1")
	_, err := c.Exec(t.Context(), &guestv1.Exec{}, Stdio{})
	if ErrorCode(err) != guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER || err.Error() != "no user" || hint.Of(err) != "make one" {
		t.Errorf("err = %v, code %v, hint %q", err, ErrorCode(err), hint.Of(err))
	}
}

func TestExecGuestGone(t *testing.T) {
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) { r.Next() }), "1")
	if _, err := c.Exec(t.Context(), &guestv1.Exec{}, Stdio{}); err == nil || hint.Of(err) == "" {
		t.Errorf("err = %v, hint %q; want an error with advice", err, hint.Of(err))
	}
}

func TestExecCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hungUp := make(chan struct{})
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
		r.Next()
		window(w, 1)
		cancel()
		for {
			if _, _, err := r.Next(); err != nil {
				close(hungUp)
				return
			}
		}
	}), "1")
	if _, err := c.Exec(ctx, &guestv1.Exec{}, Stdio{}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want the context's", err)
	}
	<-hungUp
}

// A broken input must reach the guest as a broken stream, never as a whole one.
func TestImportBrokenInput(t *testing.T) {
	bad := errors.New("bad sector")
	end := make(chan error, 1)
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
		r.Next()
		window(w, StdinWindow)
		for {
			typ, p, err := r.Next()
			if err != nil {
				end <- err
				return
			}
			if typ == FrameStdin && len(p) == 0 {
				end <- nil
				return
			}
		}
	}), "1")
	err := c.ImportImage(t.Context(), "sha256:x", 0, io.MultiReader(strings.NewReader("tar"), errReader{bad}))
	if !errors.Is(err, bad) {
		t.Errorf("err = %v, want the reader's", err)
	}
	if err := <-end; err == nil {
		t.Error("the guest saw the end of a whole archive")
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestExecPassesSignalsAndSizes(t *testing.T) {
	sigs, sizes := make(chan int, 1), make(chan Size, 1)
	sigs <- 15
	sizes <- Size{Rows: 24, Cols: 80}
	c := NewClient(pipeDialer(func(r *Reader, w *Writer, _ net.Conn) {
		r.Next()
		window(w, 1)
		var sig, size bool
		for !sig || !size {
			typ, p, err := r.Next()
			if err != nil {
				t.Error(err)
				return
			}
			sig = sig || typ == FrameSignal && bytes.Equal(p, []byte{15})
			size = size || typ == FrameResize && bytes.Equal(p, []byte{0, 24, 0, 80})
		}
		w.SendMessage(FrameExit, &guestv1.Exit{})
	}), "1")
	if _, err := c.Exec(t.Context(), &guestv1.Exec{}, Stdio{Signals: sigs, Resize: sizes}); err != nil {
		t.Fatal(err)
	}
}

func TestBootArgs(t *testing.T) {
	for _, line := range []string{"lsub.net=192.168.127.2/24,192.168.127.1,65520", "lsub.net=10.0.0.2/8,10.0.0.1,1500 lsub.search=corp.example,x lsub.idle=1m30s", "lsub.idle=-1ns", "lsub.card=5a:94:ef:e4:0c:ee lsub.disks=lsub-system,lsub-data", ""} {
		b, err := ParseBootArgs("quiet " + line + " panic=-1")
		if err != nil || b.Cmdline() != line {
			t.Errorf("ParseBootArgs(%q).Cmdline() = %q, %v", line, b.Cmdline(), err)
		}
	}
	for _, line := range []string{"lsub.net=", "lsub.net=1.2.3.4,5,6", "lsub.net=1.2.3.4/24,1.2.3.5,x", "lsub.idle=soon", "lsub.card=5a:94"} {
		if _, err := ParseBootArgs(line); err == nil {
			t.Errorf("ParseBootArgs(%q) is no error", line)
		}
	}
}

// Arguments that no kernel takes are refused as the guest's kernel does it.
func TestExecTooLong(t *testing.T) {
	c := NewClient(nil, "v")
	_, err := c.Exec(t.Context(), &guestv1.Exec{Argv: [][]byte{[]byte("true"), make([]byte, MaxRequest)}}, Stdio{})
	if ErrorCode(err) != guestv1.ErrorCode_ERROR_CODE_NOT_EXECUTABLE || !strings.Contains(err.Error(), "argument list too long") {
		t.Errorf("got %v", err)
	}
}
