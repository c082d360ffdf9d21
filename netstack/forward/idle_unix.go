//go:build unix

package forward

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// idleReader reads a connection into buffers that it borrows only while bytes are available.
type idleReader struct {
	conn net.Conn
	raw  syscall.RawConn // nil for a connection without a file descriptor
}

func newIdleReader(c net.Conn) *idleReader {
	r := &idleReader{conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			r.raw = raw
		}
	}
	return r
}

// read waits for bytes and returns them in *buf. While it waits, it returns the buffer to the
// pool; afterwards *buf may be another one.
func (r *idleReader) read(buf **[bufferSize]byte) ([]byte, error) {
	if r.raw == nil {
		n, err := r.conn.Read((*buf)[:])
		return (*buf)[:n], err
	}
	var n int
	var err error
	rerr := r.raw.Read(func(fd uintptr) bool {
		if *buf == nil {
			*buf = buffers.Get().(*[bufferSize]byte)
		}
		for {
			if n, err = unix.Read(int(fd), (*buf)[:]); err != unix.EINTR {
				break
			}
		}
		if err != unix.EAGAIN {
			return true
		}
		buffers.Put(*buf)
		*buf = nil
		return false
	})
	switch {
	case rerr != nil:
		return nil, rerr
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	}
	return (*buf)[:n], nil
}
