package forward

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// bufferSize is the maximum size of a read, in bytes: two of the largest segments on the
// guest's loopback.
const bufferSize = 2 * 65476

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// relay copies bytes between a connection of the host and a stream to the guest. It passes on
// half-closes and resets. A reset of a stream is a Close without an earlier half-close.
type relay struct {
	conn   net.Conn
	stream net.Conn
	stats  *stats

	failed atomic.Bool
	shut   atomic.Bool // the guest was told the end
}

// run relays until both directions have ended, and closes both ends. It returns an error if
// the guest refuses.
func (r *relay) run(opened func() ([]byte, error)) (refused error) {
	up := make(chan struct{})
	go func() {
		defer close(up)
		r.toGuest()
	}()
	head, refused := opened()
	if refused != nil {
		r.fail(r.stream, r.conn)
	} else {
		r.toHost(head)
	}
	<-up
	if r.failed.Load() {
		reset(r.conn)
	} else {
		r.conn.Close()
	}
	r.stream.Close()
	return refused
}

// cut ends the relay at once.
func (r *relay) cut() {
	r.fail(r.stream, r.conn)
	r.fail(r.conn, r.stream)
}

var past = time.Unix(1, 0)

// fail ends the direction from src, and the other one too.
func (r *relay) fail(src, dst net.Conn) {
	r.failed.Store(true)
	dst.SetReadDeadline(past)
	src.SetWriteDeadline(past)
}

// drainTime is how long an end that takes no more bytes may still send some.
const drainTime = 5 * time.Second

// errWrite is an error of the destination.
type errWrite struct{ error }

// toGuest copies the bytes from the host's connection.
func (r *relay) toGuest() {
	err := copyIdle(counted{r.stream, &r.stats.toGuest}, r.conn)
	var werr errWrite
	switch {
	case err == nil && r.failed.Load():
	case err == nil:
		r.shut.Store(true)
		closeWrite(r.stream)
	case errors.As(err, &werr): // the stream will end by itself
		r.failed.Store(true)
		r.stream.SetReadDeadline(time.Now().Add(drainTime))
	default:
		r.fail(r.conn, r.stream)
	}
}

// toHost copies the bytes from the guest; head has arrived already.
func (r *relay) toHost(head []byte) {
	w := counted{r.conn, &r.stats.toHost}
	var err error
	if len(head) > 0 {
		_, err = w.Write(head)
	}
	if err != nil { // nobody wants the rest
	} else if wt, ok := r.stream.(io.WriterTo); ok { // it writes from its own buffer
		_, err = wt.WriteTo(withWriteNow(w))
	} else {
		err = copyIdle(w, r.stream)
	}
	var werr errWrite
	switch {
	case err == nil && r.streamReset():
		r.fail(r.stream, r.conn)
	case err == nil && r.failed.Load():
	case err == nil:
		closeWrite(r.conn)
	case errors.As(err, &werr):
		r.failed.Store(true)
		r.conn.SetReadDeadline(time.Now().Add(drainTime))
	default:
		r.fail(r.stream, r.conn)
	}
}

// streamReset reports, after the guest's last byte, whether the guest has closed both
// directions although it was not told the end of ours.
func (r *relay) streamReset() bool {
	if r.shut.Load() {
		return false
	}
	_, err := r.stream.Write(nil) // sends nothing; fails if the stream is closed
	return err != nil
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// counted counts the bytes written.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	if err != nil {
		err = errWrite{err}
	}
	return n, err
}

// copyIdle copies until the end of src. While src is idle, it holds almost no buffer.
func copyIdle(dst io.Writer, src net.Conn) error {
	r := newIdleReader(src)
	for {
		buf := buffers.Get().(*[bufferSize]byte)
		p, err := r.read(&buf)
		if len(p) > 0 {
			if _, werr := dst.Write(p); werr != nil {
				err = werr
			}
		}
		if buf != nil {
			buffers.Put(buf)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
