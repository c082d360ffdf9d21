package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/lsub/lsub/guest"
)

// stdinBuffer holds the stdin bytes of a stream, or the keys of its terminal, that have
// arrived and are not read yet: at most the window that the host was granted, so that frames
// behind them (signals) never wait. It is an io.Reader for one goroutine.
type stdinBuffer struct {
	w      *guest.Writer
	grants guest.FrameType // of the frames that tell the host about room
	window int             // bytes

	mu     sync.Mutex
	filled sync.Cond
	ring   []byte // grows up to the window, and is used again: an import is long
	start  int    // of the bytes in ring
	size   int    // of them
	freed  int    // bytes read and not yet granted again
	err    error  // why no more comes: io.EOF, or what broke the stream
}

func newStdinBuffer(w *guest.Writer) *stdinBuffer {
	return newInputBuffer(w, guest.FrameWindow, guest.StdinWindow)
}

// newKeysBuffer returns one for the keys of a terminal beside pipes.
func newKeysBuffer(w *guest.Writer) *stdinBuffer {
	return newInputBuffer(w, guest.FrameKeysWindow, guest.KeysWindow)
}

func newInputBuffer(w *guest.Writer, grants guest.FrameType, window int) *stdinBuffer {
	in := &stdinBuffer{w: w, grants: grants, window: window}
	in.filled.L = &in.mu
	return in
}

// open grants the first window, which also tells the host that its request was
// taken on.
func (in *stdinBuffer) open() { in.grant(in.window) }

func (in *stdinBuffer) grant(n int) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	in.w.Send(in.grants, b[:]) // a broken stream shows when it is read
}

// put adds a copy of p; an empty p is the end of the input.
func (in *stdinBuffer) put(p []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.err != nil:
		return nil // after the end: nobody reads it
	case len(p) == 0:
		in.err = io.EOF
	case in.size+in.freed+len(p) > in.window:
		return errors.New("more input than was granted")
	default:
		in.store(p)
	}
	in.filled.Broadcast()
	return nil
}

// store copies p behind what is in the ring.
func (in *stdinBuffer) store(p []byte) {
	if in.size+len(p) > len(in.ring) {
		ring := make([]byte, max(in.size+len(p), min(2*len(in.ring), in.window)))
		in.peek(ring[:in.size])
		in.ring, in.start = ring, 0
	}
	end := (in.start + in.size) % len(in.ring)
	n := copy(in.ring[end:], p)
	copy(in.ring, p[n:])
	in.size += len(p)
}

// peek copies the first bytes of the ring.
func (in *stdinBuffer) peek(p []byte) int {
	n := min(len(p), in.size)
	k := copy(p[:n], in.ring[in.start:])
	copy(p[k:n], in.ring)
	return n
}

// fail ends the input with err, where it has not ended yet.
func (in *stdinBuffer) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		in.err = err
	}
	in.filled.Broadcast()
}

// Read waits for bytes. It returns io.EOF only where the host said that the
// input is whole.
func (in *stdinBuffer) Read(p []byte) (int, error) {
	in.mu.Lock()
	for in.size == 0 && in.err == nil {
		in.filled.Wait()
	}
	if in.size == 0 {
		defer in.mu.Unlock()
		return 0, in.err
	}
	n := in.peek(p)
	in.start = (in.start + n) % len(in.ring)
	in.size -= n
	in.freed += n
	give := 0
	if in.freed >= in.window/4 && in.err == nil {
		give, in.freed = in.freed, 0
	}
	in.mu.Unlock()
	if give > 0 {
		in.grant(give)
	}
	return n, nil
}

// controlFrame is a signal or a resize.
type controlFrame struct {
	signal     int // 0 for a resize
	rows, cols uint16
}

// hostInput is what comes from the host on a stream.
type hostInput struct {
	stdin    *stdinBuffer
	keys     *stdinBuffer      // nil without a terminal beside pipes
	controls chan controlFrame // nil but for a command
}

// open grants the first windows, which also tells the host that its request was taken on.
func (in *hostInput) open() {
	in.stdin.open()
	if in.keys != nil {
		in.keys.open()
	}
}

// fail ends the input with err.
func (in *hostInput) fail(err error) {
	in.stdin.fail(err)
	if in.keys != nil {
		in.keys.fail(err)
	}
}

// receive sorts the host's frames until the stream ends. It returns nil at the
// end of the stream.
func (in *hostInput) receive(r *guest.Reader) error {
	for {
		t, p, err := r.Next()
		if err != nil {
			return err
		}
		switch {
		case t == guest.FrameStdin:
			if err := in.stdin.put(p); err != nil {
				return err
			}
		case t == guest.FrameKeys && in.keys != nil:
			if err := in.keys.put(p); err != nil {
				return err
			}
		case t == guest.FrameSignal && len(p) == 1 && in.controls != nil:
			pass(in.controls, controlFrame{signal: int(p[0])})
		case t == guest.FrameResize && len(p) == 4 && in.controls != nil:
			pass(in.controls, controlFrame{rows: binary.BigEndian.Uint16(p), cols: binary.BigEndian.Uint16(p[2:])})
		default:
			return fmt.Errorf("unexpected frame of type %d with %d bytes", t, len(p))
		}
	}
}

// pass drops c where sixteen others wait: a command not yet
// started gets no more than those.
func pass(controls chan<- controlFrame, c controlFrame) {
	select {
	case controls <- c:
	default:
	}
}
