package forward

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// nowWriter is a counted connection with a non-blocking write. So the devices can write to it
// from the guest's memory without waking a goroutine.
type nowWriter struct {
	counted
	raw syscall.RawConn
}

// withWriteNow returns w, with a WriteNow if it is a socket.
func withWriteNow(w counted) io.Writer {
	if sc, ok := w.Conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return nowWriter{w, raw}
		}
	}
	return w
}

// maxPieces is the most buffers that writev(2) takes (UIO_MAXIOV).
const maxPieces = 1024

// WriteNow writes as much as the socket takes without blocking.
func (w nowWriter) WriteNow(p [][]byte) (n int, err error) {
	p = p[:min(len(p), maxPieces)]
	cerr := w.raw.Control(func(fd uintptr) {
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
	w.n.Add(int64(n))
	return n, nil
}
