package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
)

// Deadlines of a stream. A running command may be silent for ever; a guest
// that does not take a request on is broken.
const (
	answerTimeout = 20 * time.Second  // until the first frame
	startTimeout  = 180 * time.Second // until the command runs; a distro's start is bounded in the guest
)

// Size is a terminal's size in characters.
type Size struct{ Rows, Cols uint16 }

// Stdio is what a command on the host lends to one in a distro.
type Stdio struct {
	Stdin          io.Reader   // nil is an empty file
	Stdout, Stderr io.Writer   // nil discards
	Signals        <-chan int  // Linux signal numbers to pass on
	Resize         <-chan Size // new sizes of the terminal
	Terminal       Terminal    // where the request has pipes beside a terminal; nil otherwise
	// Started, where set, is called once when the command runs, before its
	// output. Until then, only the end of the context has an effect on it.
	Started func(*guestv1.Started)
}

// Exit is how a command ended.
type Exit struct {
	Code   int    // of a command that exited
	Signal int    // Linux number of the signal that ended it; 0 for none
	Reason string // what killed it, as words for people, where it was not somebody's wish
}

// Status is the exit status as a shell tells it: the code, or 128 + the signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}

// Exec runs a command in a distro, starting the distro where it is stopped,
// and returns how it ended. When ctx is done, the stream is cut, which hangs
// the command up (SIGHUP).
//
// A goroutine that reads io.Stdin may outlive the call, blocked in Read, where
// the command ends before its input does.
func (c *Client) Exec(ctx context.Context, cmd *guestv1.Exec, stdio Stdio) (Exit, error) {
	req := &guestv1.StreamRequest{Kind: &guestv1.StreamRequest_Exec{Exec: cmd}}
	if proto.Size(req) > MaxRequest-1<<10 { // no kernel takes as much
		return Exit{}, Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_EXECUTABLE, "", "argument list too long")
	}
	return c.stream(ctx, req, stdio)
}

// ImportImage unpacks an uncompressed tar archive into an image of the VM. id
// is "sha256:" and the archive's digest, which tar's reader is to check: where it
// fails, nothing is imported. size in bytes is 0 where unknown. An image that is there already makes it return at once.
func (c *Client) ImportImage(ctx context.Context, id string, size int64, tar io.Reader) error {
	req := &guestv1.StreamRequest{Kind: &guestv1.StreamRequest_ImportImage{
		ImportImage: &guestv1.ImportImage{Id: id, Size: uint64(size)}}}
	_, err := c.stream(ctx, req, Stdio{Stdin: tar})
	return err
}

// Export writes the files of a distro or of a snapshot to stdio.Stdout, as a
// plain tar archive that ImportImage takes; where it returns an error, that is
// not whole. stdio.Stderr gets a line for each file that cannot be in an archive,
// and Started is told about how long the archive will be. The rest of stdio is
// not used.
func (c *Client) Export(ctx context.Context, req *guestv1.Export, stdio Stdio) error {
	_, err := c.stream(ctx, &guestv1.StreamRequest{Kind: &guestv1.StreamRequest_Export{Export: req}},
		Stdio{Stdout: stdio.Stdout, Stderr: stdio.Stderr, Started: stdio.Started})
	return err
}

// stream opens a stream with req and serves it until its last frame.
func (c *Client) stream(ctx context.Context, req *guestv1.StreamRequest, stdio Stdio) (Exit, error) {
	conn, err := c.dialer.Dial(ctx, StreamPort)
	if err != nil {
		return Exit{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	w := NewWriter(conn)
	req.Version = c.version
	if err := w.SendMessage(FrameRequest, req); err != nil {
		return Exit{}, streamError(ctx, err)
	}
	done := make(chan struct{})
	defer close(done)
	in := newPump(w, FrameStdin, stdio.Stdin, done)
	go in.run()
	var screen *screen
	if stdio.Terminal != nil {
		screen = newScreen(w, stdio.Terminal, done)
		go screen.keys.run()
	}
	go passOn(w, stdio, done)
	exit, err := receive(conn, stdio, in, screen)
	if err != nil {
		return Exit{}, streamError(ctx, err)
	}
	return exit, nil
}

// receive handles the guest's frames until the last.
func receive(conn net.Conn, stdio Stdio, in *pump, screen *screen) (Exit, error) {
	r := NewReader(conn)
	conn.SetReadDeadline(time.Now().Add(answerTimeout))
	for first := true; ; first = false {
		t, p, err := r.Next()
		if err != nil {
			select {
			case inErr := <-in.failed: // the cause, where reading our input failed
				return Exit{}, inErr
			default:
				return Exit{}, err
			}
		}
		if first {
			conn.SetReadDeadline(time.Now().Add(startTimeout))
		}
		switch t {
		case FrameStarted:
			conn.SetReadDeadline(time.Time{})
			var m guestv1.Started
			if err := decode(p, &m); err != nil {
				return Exit{}, err
			}
			if stdio.Started != nil {
				stdio.Started(&m)
			}
		case FrameStdout:
			err = writeAll(stdio.Stdout, p)
		case FrameStderr:
			err = writeAll(stdio.Stderr, p)
		case FrameWindow:
			err = in.granted(p)
		case FrameScreen, FrameAsk, FrameKeysWindow:
			err = screen.take(t, p)
		case FrameExit:
			var m guestv1.Exit
			if err := decode(p, &m); err != nil {
				return Exit{}, err
			}
			return Exit{Code: int(m.Code), Signal: int(m.Signal), Reason: m.Reason}, nil
		case FrameError:
			var m guestv1.Error
			if err := decode(p, &m); err != nil {
				return Exit{}, err
			}
			return Exit{}, Errorf(m.Code, m.Hint, "%s", m.Message)
		default:
			return Exit{}, unexpected(t)
		}
		if err != nil {
			return Exit{}, err
		}
	}
}

func unexpected(t FrameType) error { return frameError(fmt.Sprintf("unexpected frame of type %d", t)) }

func writeAll(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// passOn sends signals and sizes until done.
func passOn(w *Writer, stdio Stdio, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s := <-stdio.Signals:
			w.Send(FrameSignal, []byte{byte(s)})
		case s := <-stdio.Resize:
			var b [4]byte
			binary.BigEndian.PutUint16(b[:], s.Rows)
			binary.BigEndian.PutUint16(b[2:], s.Cols)
			w.Send(FrameResize, b[:])
		}
	}
}

// pump sends input as far as the guest has granted room for it.
type pump struct {
	w      *Writer
	t      FrameType
	r      io.Reader
	window chan int   // bytes granted and not yet taken
	failed chan error // what broke the input, if anything
	done   <-chan struct{}
}

func newPump(w *Writer, t FrameType, r io.Reader, done <-chan struct{}) *pump {
	return &pump{w: w, t: t, r: r, window: make(chan int, 1), failed: make(chan error, 1), done: done}
}

// granted takes the payload of a window frame.
func (p *pump) granted(b []byte) error {
	if len(b) != 4 {
		return frameError("a window frame has 4 bytes")
	}
	for n := int(binary.BigEndian.Uint32(b)); ; {
		select {
		case p.window <- n:
			return nil
		case more := <-p.window:
			n += more
		}
	}
}

func (p *pump) run() {
	buf := make([]byte, HeaderSize+MaxPayload) // long frames: each is a wake-up of the guest
	if p.r == nil {
		p.w.SendBuffer(p.t, buf[:HeaderSize])
		return
	}
	for room := 0; ; {
		if room == 0 {
			select {
			case <-p.done:
				return
			case room = <-p.window:
			}
		}
		n, err := p.r.Read(buf[HeaderSize : HeaderSize+min(room, len(buf)-HeaderSize)])
		if n > 0 {
			if p.w.SendBuffer(p.t, buf[:HeaderSize+n]) != nil {
				return
			}
			room -= n
		}
		switch {
		case errors.Is(err, io.EOF):
			p.w.SendBuffer(p.t, buf[:HeaderSize])
			return
		case err != nil:
			p.failed <- fmt.Errorf("read the input: %w", err)
			if c, ok := p.w.w.(io.Closer); ok {
				c.Close() // the guest must not take a broken input for a whole one
			}
			return
		}
	}
}

// streamError says what a broken stream means.
func streamError(ctx context.Context, err error) error {
	var remote *Error
	switch {
	case errors.As(err, &remote):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return hint.New(errors.New("the VM does not answer"), "see 'lsub logs'; 'lsub shutdown --force' ends the VM")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return hint.New(&brokenError{err}, "see 'lsub logs'; the next command starts the VM afresh")
	}
	return err
}

// brokenError is a connection to the VM that ended too early.
type brokenError struct{ cause error }

func (e *brokenError) Error() string {
	return "the connection to the VM broke: the VM or its supervisor ended"
}

func (e *brokenError) Unwrap() error { return e.cause }
