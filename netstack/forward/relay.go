package forward

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// bufferSize is the most bytes that are read at once: two of the largest segments that
// the guest's loopback takes.
const bufferSize = 2 * 65476

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// relay moves bytes between a connection of the host and a stream to the guest.
// A half-close goes through as one, and so does a reset: of a stream, that is a
// Close without a half-close before it.
type relay struct {
	conn   net.Conn
	stream net.Conn
	stats  *stats

	failed atomic.Bool
	shut   atomic.Bool // the guest was told that no more comes
}

// run relays until both ways have ended, and closes both ends. Its error is the
// guest's answer where that is no.
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

// fail ends the way from src, and the way to it too.
func (r *relay) fail(src, dst net.Conn) {
	r.failed.Store(true)
	dst.SetReadDeadline(past)
	src.SetWriteDeadline(past)
}

// drainTime is how long an end that takes no more may still have something to
// say.
const drainTime = 5 * time.Second

// errWrite is a failure of what is written to.
type errWrite struct{ error }

// toGuest moves what comes from the host's connection.
func (r *relay) toGuest() {
	err := copyIdle(counted{r.stream, &r.stats.toGuest}, r.conn)
	var werr errWrite
	switch {
	case err == nil && r.failed.Load():
	case err == nil:
		r.shut.Store(true)
		closeWrite(r.stream)
	case errors.As(err, &werr): // the stream has an end, then
		r.failed.Store(true)
		r.stream.SetReadDeadline(time.Now().Add(drainTime))
	default:
		r.fail(r.conn, r.stream)
	}
}

// toHost moves what comes from the guest; head has come already.
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

// streamReset tells, after the end of what comes, whether the guest has closed
// the stream altogether though it was not told that we are done.
func (r *relay) streamReset() bool {
	if r.shut.Load() {
		return false
	}
	_, err := r.stream.Write(nil) // sends nothing, and fails where nothing can be sent
	return err != nil
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// counted counts what is written.
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

// copyIdle copies until the end of src. While nothing comes, it holds no buffer
// to speak of.
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
