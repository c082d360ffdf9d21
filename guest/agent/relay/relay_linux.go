// Package relay moves bytes between two sockets of the VM: a stream to the host
// and a connection in a distro.
//
// A half-close is passed on as one. A connection that is reset is passed on as
// a stream that closes without one, and the other way round: vsock has no reset
// of its own that a program could ask for.
//
//	relay.Stream(stream, conn, nil) // until both ways have ended
//	relay.Packets(stream, udp, nil)
//
// A connection that is open and silent costs two goroutines and no buffer. The
// package is Linux only.
package relay

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bufferSize is the most bytes that are moved at once.
const bufferSize = 128 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Conn is one end: a [TCPConn], a *net.UnixConn, a *vsock.Conn.
type Conn interface {
	io.ReadWriteCloser
	syscall.Conn
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	CloseWrite() error
}

// Stream moves bytes both ways until both have ended, and closes both ends.
// stream is the one to the host; head was read from it already.
func Stream(stream, conn Conn, head []byte) {
	r := &relay{stream: stream}
	a, aerr := newEnd(stream)
	b, berr := newEnd(conn)
	if aerr == nil && berr == nil {
		back := make(chan struct{})
		go func() {
			defer close(back)
			r.pump(a, b)
		}()
		if len(head) > 0 && b.write(head) != nil {
			r.failWrite(b)
		} else {
			r.pump(b, a)
		}
		<-back
	}
	if l, ok := conn.(interface{ SetLinger(int) error }); ok && (r.failed.Load() || aerr != nil || berr != nil) {
		l.SetLinger(0) // its peer sees a reset
	}
	conn.Close()
	stream.Close()
}

// relay is the state that both ways share.
type relay struct {
	stream Conn
	failed atomic.Bool
}

// end is one end of a relay.
type end struct {
	Conn
	raw  syscall.RawConn
	shut atomic.Bool // no more is written to it
	last int         // bytes that came from it last
}

func newEnd(c Conn) (*end, error) {
	raw, err := c.SyscallConn()
	return &end{Conn: c, raw: raw}, err
}

// drainTime is how long an end that takes no more may still have something to
// say.
const drainTime = 5 * time.Second

// pump moves bytes one way until their end, and passes that on. What fails fails
// both ways: where src is broken at once; where dst takes no more, once what it has
// said already is through, which is followed by its end.
func (r *relay) pump(dst, src *end) {
	var err error
	for err == nil {
		var writing bool
		if writing, err = move(dst, src); err != nil && writing {
			r.failWrite(dst)
			return
		}
	}
	if err == io.EOF && !r.wasReset(src) {
		if r.failed.Load() {
			return
		}
		dst.shut.Store(true)
		if dst.CloseWrite() == nil {
			return
		}
	}
	r.failed.Store(true)
	dst.SetReadDeadline(time.Unix(1, 0))
	src.SetWriteDeadline(time.Unix(1, 0))
}

// failWrite fails both ways once what an end that takes no more has said is
// through.
func (r *relay) failWrite(dst *end) {
	r.failed.Store(true)
	dst.SetReadDeadline(time.Now().Add(drainTime))
}

// wasReset tells of the stream, after the end of what comes, whether the host
// has closed it altogether though we have not said that we are done.
func (r *relay) wasReset(e *end) bool {
	if e.Conn != r.stream || e.shut.Load() {
		return false
	}
	var err error
	cerr := e.raw.Control(func(fd uintptr) {
		// Nothing is sent: the kernel only looks whether anything could be.
		err = unix.Sendto(int(fd), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
	})
	return cerr != nil || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// move waits for bytes and moves some. Only while there are any does it hold a
// buffer. writing tells that it is dst that failed.
func move(dst, src *end) (writing bool, err error) {
	if src.last >= bulk {
		if done, writing, err := splice(dst, src); done {
			return writing, err
		}
	}
	var buf *[bufferSize]byte
	var n int
	rerr := src.raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[bufferSize]byte)
		n, err = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), buf[:]) })
		if err == unix.EAGAIN {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer buffers.Put(buf)
	}
	switch {
	case rerr != nil:
		return false, rerr
	case err != nil:
		return false, err
	case n == 0:
		return false, io.EOF
	}
	src.last = n
	return true, dst.write(buf[:n])
}

func (e *end) write(p []byte) error {
	var err error
	werr := e.raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			var n int
			n, err = ignoringEINTR(func() (int, error) { return unix.Write(int(fd), p) })
			if err == unix.EAGAIN {
				return false
			}
			if err != nil {
				return true
			}
			p = p[n:]
		}
		return true
	})
	if werr != nil {
		return werr
	}
	return err
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
