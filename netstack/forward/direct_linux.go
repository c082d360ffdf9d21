package forward

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// directly is a counted connection that our own vsock device writes to by itself,
// from the guest's memory: no goroutine has to wake for that.
type directly struct {
	counted
	raw syscall.RawConn
}

// direct returns w with a WriteNow, where it is a socket.
func direct(w counted) io.Writer {
	if sc, ok := w.Conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return directly{w, raw}
		}
	}
	return w
}

// maxPieces is the most that writev(2) takes (UIO_MAXIOV).
const maxPieces = 1024

// WriteNow writes what the socket takes at once.
func (d directly) WriteNow(p [][]byte) (n int, err error) {
	p = p[:min(len(p), maxPieces)]
	cerr := d.raw.Control(func(fd uintptr) {
		for {
			if n, err = unix.Writev(int(fd), p); err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case cerr != nil:
		return 0, errWrite{cerr}
	case err == unix.EAGAIN:
		return 0, nil
	case err != nil:
		return 0, errWrite{err}
	}
	d.n.Add(int64(n))
	return n, nil
}
