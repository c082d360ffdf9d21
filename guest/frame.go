package guest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/lsub/lsub/guest/guestv1"
)

// FrameType says what a frame carries.
type FrameType uint8

// The frames of a stream. The host opens with a request; whatever the guest
// sends first (a window, then more) shows that it took the request on.
const (
	FrameRequest FrameType = 1 // host → guest: a StreamRequest
	FrameStdin   FrameType = 2 // host → guest: bytes; an empty one is the end of file
	FrameSignal  FrameType = 3 // host → guest: one byte, a Linux signal number
	FrameResize  FrameType = 4 // host → guest: rows and columns, 2 bytes each, big endian
	FrameKeys    FrameType = 5 // host → guest: bytes typed at a terminal beside pipes; an empty one hangs it up

	FrameStdout  FrameType = 16 // guest → host: bytes
	FrameStderr  FrameType = 17 // guest → host: bytes
	FrameWindow  FrameType = 18 // guest → host: 4 bytes big endian, how many more stdin bytes may come
	FrameExit    FrameType = 19 // guest → host: an Exit; the last frame
	FrameError   FrameType = 20 // guest → host: an Error; the last frame
	FrameHello   FrameType = 21 // guest → host, on HelloPort: a Hello; the only frame
	FrameStarted FrameType = 22 // guest → host: a Started: the command runs; before its output

	FrameAccepted FrameType = 23 // guest → host, on ForwardPort: 8 bytes, the number of a connection that came

	FrameScreen     FrameType = 24 // guest → host: bytes for a terminal beside pipes
	FrameAsk        FrameType = 25 // guest → host: 1 byte, an Ask: whether a process waits for keys of that terminal
	FrameKeysWindow FrameType = 26 // guest → host: as a window frame, for bytes of keys
)

// Ask is what the guest asks of the host's terminal beside pipes.
type Ask uint8

const (
	AskNothing Ask = 0 // nobody waits for keys any more
	AskKeys    Ask = 1 // each key; what programs of the host write stays lines
	AskAll     Ask = 2 // each key, and the screen without any processing of what is written
)

const (
	// HeaderSize is the size of a frame's header in bytes: the type, then the
	// payload's length in 3 bytes, big endian.
	HeaderSize = 4
	// MaxPayload is the longest payload of a frame but a request, in bytes. A
	// longer one is a protocol error, found before anything is allocated for it.
	MaxPayload = 256 << 10
	// MaxRequest is the longest payload of a request frame: Linux takes
	// 6 MiB of arguments and environment at most.
	MaxRequest = 8 << 20
	// StdinWindow is the most stdin bytes that may be on their way: the host
	// sends no more until the guest has passed some on, so that a signal never
	// waits behind input that nobody reads.
	StdinWindow = 1 << 20
	// KeysWindow is the same for what is typed or pasted at a terminal beside pipes.
	KeysWindow = 64 << 10
)

// maxPayload is the longest payload of a frame of a type.
func maxPayload(t FrameType) int {
	if t == FrameRequest {
		return MaxRequest
	}
	return MaxPayload
}

// frameError is a stream that breaks the protocol.
type frameError string

func (e frameError) Error() string { return "guest protocol: " + string(e) }

// PutHeader writes the header of a frame of n payload bytes to b[:HeaderSize].
func PutHeader(b []byte, t FrameType, n int) {
	binary.BigEndian.PutUint32(b, uint32(t)<<24|uint32(n))
}

// Frame returns a frame.
func Frame(t FrameType, payload []byte) []byte {
	b := make([]byte, HeaderSize, HeaderSize+len(payload))
	PutHeader(b, t, len(payload))
	return append(b, payload...)
}

// Writer writes frames. It is safe for concurrent use.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a writer of frames to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes a frame with a copy of payload.
func (w *Writer) Send(t FrameType, payload []byte) error {
	b := make([]byte, HeaderSize+len(payload))
	copy(b[HeaderSize:], payload)
	return w.SendBuffer(t, b)
}

// SendBuffer writes a frame whose payload is b[HeaderSize:], in one write and
// without a copy. It fills in the header.
func (w *Writer) SendBuffer(t FrameType, b []byte) error {
	n := len(b) - HeaderSize
	if n > maxPayload(t) {
		return frameError(fmt.Sprintf("a frame of %d bytes is too long", n))
	}
	PutHeader(b, t, n)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(b)
	return err
}

// SendMessage writes a frame that carries m.
func (w *Writer) SendMessage(t FrameType, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return w.Send(t, b)
}

// Reader reads frames. One goroutine may use it at a time.
type Reader struct {
	r   *bufio.Reader
	buf []byte
}

// NewReader returns a reader of frames from r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 32<<10)}
}

// Next returns the next frame. The payload is good until the next call. At the
// end between two frames the error is io.EOF, inside one io.ErrUnexpectedEOF.
func (r *Reader) Next() (FrameType, []byte, error) {
	var h [HeaderSize]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return 0, nil, err
	}
	v := binary.BigEndian.Uint32(h[:])
	t, n := FrameType(v>>24), int(v&0xffffff)
	if limit := maxPayload(t); n > limit {
		return 0, nil, frameError(fmt.Sprintf("a frame of type %d announces %d bytes; at most %d are allowed", t, n, limit))
	}
	if n > len(r.buf) {
		r.buf = make([]byte, n)
	}
	p := r.buf[:n]
	if _, err := io.ReadFull(r.r, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, p, nil
}

// Expect reads a frame of type t into m.
func (r *Reader) Expect(t FrameType, m proto.Message) error {
	got, p, err := r.Next()
	if err != nil {
		return err
	}
	if got != t {
		return frameError(fmt.Sprintf("a frame of type %d where one of type %d was due", got, t))
	}
	return decode(p, m)
}

// ReadMessage reads a frame of type t into m, in one read where it came in one.
// head is what follows the frame and was read with it. A frame of an error is
// returned as that.
func ReadMessage(r io.Reader, t FrameType, m proto.Message) (head []byte, err error) {
	b, have := make([]byte, 512), 0
	for need := HeaderSize; have < need; {
		n, err := io.ReadAtLeast(r, b[have:], need-have)
		if err == io.EOF && have > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		have += n
		if need, err = frameSize(b); err != nil {
			return nil, err
		}
		b = append(b, make([]byte, max(0, need-len(b)))...)
	}
	head, _, err = ParseMessage(b[:have], t, m)
	return head, err
}

// frameSize returns the size of the frame that begins with b.
func frameSize(b []byte) (int, error) {
	v := binary.BigEndian.Uint32(b)
	t, n := FrameType(v>>24), int(v&0xffffff)
	if limit := maxPayload(t); n > limit {
		return 0, frameError(fmt.Sprintf("a frame of type %d announces %d bytes; at most %d are allowed", t, n, limit))
	}
	return HeaderSize + n, nil
}

// ParseMessage reads a frame of type t from the beginning of b into m; head is
// the rest of b. whole is false, and nothing done, where b ends within the frame.
func ParseMessage(b []byte, t FrameType, m proto.Message) (head []byte, whole bool, err error) {
	if len(b) < HeaderSize {
		return nil, false, nil
	}
	size, err := frameSize(b)
	if err != nil {
		return nil, false, err
	}
	if len(b) < size {
		return nil, false, nil
	}
	switch got, p := FrameType(b[0]), b[HeaderSize:size]; {
	case got == t:
		return b[size:], true, decode(p, m)
	case got == FrameError:
		var e guestv1.Error
		if err := decode(p, &e); err != nil {
			return nil, true, err
		}
		return nil, true, Errorf(e.Code, e.Hint, "%s", e.Message)
	default:
		return nil, true, frameError(fmt.Sprintf("a frame of type %d where one of type %d was due", got, t))
	}
}

func decode(p []byte, m proto.Message) error {
	if err := proto.Unmarshal(p, m); err != nil {
		return frameError(fmt.Sprintf("%T: %v", m, err))
	}
	return nil
}
