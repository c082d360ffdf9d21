package share

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxParallel bounds how many requests of a stream are served at once. The guest's kernel
// waits before it sends as many, except for requests that wait for locks.
const maxParallel = 256

// ServeStream serves the requests that come on conn, one after the other as the guest's
// kernel has written them, and writes the answers to it, in any order. Each begins with its
// length. It returns nil at the end of the stream, when all requests are done. The caller
// closes conn, which ends it too.
func (s *Server) ServeStream(ctx context.Context, conn io.ReadWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	t := &stream{s: s, conn: conn, r: bufio.NewReaderSize(conn, streamBuffer), slots: make(chan struct{}, maxParallel)}
	for {
		b, err := t.receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if t.r.Buffered() == 0 && !Waits([][]byte{b.b}) {
			t.serve(ctx, b) // a change of goroutines is most of the cost of a short request
			continue
		}
		t.slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-t.slots }()
			t.serve(ctx, b)
		})
	}
}

// streamBuffer is how much is read at once, in bytes.
const streamBuffer = 64 << 10

type stream struct {
	s     *Server
	conn  io.ReadWriter
	r     *bufio.Reader
	slots chan struct{}

	mu     sync.Mutex // of writes
	broken bool
}

// buffers are of requests and answers.
var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, MaxRequest); return &b }}
)

// buffer returns a buffer of at least n bytes, up to MaxRequest, and what gives it back.
func buffer(n int) (b *[]byte, giveBack func()) {
	pool := &smallBuffers
	if n > 16<<10 {
		pool = &largeBuffers
	}
	b = pool.Get().(*[]byte)
	return b, func() { pool.Put(b) }
}

// message is a request in a buffer.
type message struct {
	b        []byte
	giveBack func()
}

func (t *stream) receive() (m message, err error) {
	var length [4]byte
	if _, err := io.ReadFull(t.r, length[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", errStream, err)
		}
		return m, err
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n < inHeaderLen || n > MaxRequest {
		return m, fmt.Errorf("%w: a request of %d bytes", errStream, n)
	}
	b, giveBack := buffer(int(n))
	m = message{(*b)[:n], giveBack}
	copy(m.b, length[:])
	if _, err := io.ReadFull(t.r, m.b[len(length):]); err != nil {
		giveBack()
		return m, fmt.Errorf("%w: %w", errStream, err)
	}
	return m, nil
}

// answerSize is how much room the answer to a request may need.
func answerSize(request []byte) int {
	const sizeAt = inHeaderLen + 16 // in a struct fuse_read_in
	switch binary.LittleEndian.Uint32(request[4:]) {
	case opRead, opReaddir, opReaddirplus:
		if len(request) >= sizeAt+4 {
			return outHeaderLen + int(min(binary.LittleEndian.Uint32(request[sizeAt:]), MaxWrite))
		}
	case opGetxattr, opListxattr:
		return outHeaderLen + 64<<10
	}
	return 16 << 10
}

func (t *stream) serve(ctx context.Context, m message) {
	defer m.giveBack()
	size := answerSize(m.b)
	out, giveBack := buffer(size)
	defer giveBack()
	n := t.s.Handle(ctx, [][]byte{m.b}, [][]byte{(*out)[:size]})
	if n == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken { // the reader hears of it too
		return
	}
	_, err := t.conn.Write((*out)[:n])
	t.broken = err != nil
}
