//go:build unix

package netstack

import (
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// turn is roughly the amount of one write. Meanwhile, the guest's new segments wait, and so
// do their acknowledgements.
const turn = 256 << 10 // bytes

// toHost copies the guest's bytes to the host's socket until their end. It writes them from
// the endpoint's own buffers.
func (c guestConn) toHost(h hostConn, _ int) error {
	raw, err := h.SyscallConn()
	if err != nil {
		return err
	}
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	var w turnWriter
	var failure tcpip.Error
	// The endpoint is locked during the read, so the read must not block. If the socket is
	// full, its poller calls again when it has room.
	read := func(fd uintptr) bool {
		w = turnWriter{fd: int(fd)}
		_, failure = c.ep.Read(&w, tcpip.ReadOptions{})
		return w.n > 0 || !w.full
	}
	for {
		if err := raw.Write(read); err != nil {
			return err
		}
		if w.err != nil {
			return w.err
		}
		switch failure.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-readable
		case *tcpip.ErrClosedForReceive:
			return nil
		default:
			return errors.New(failure.String())
		}
	}
}

// turnWriter writes to a socket without blocking, up to a turn.
type turnWriter struct {
	fd   int
	n    int   // bytes written
	full bool  // the socket is full
	err  error // of the socket
}

// errTurn ends a turn. The endpoint keeps the unwritten bytes.
var errTurn = errors.New("the turn is over")

func (w *turnWriter) Write(p []byte) (n int, err error) {
	if w.n >= turn || w.full {
		return 0, errTurn
	}
	for {
		if n, err = unix.Write(w.fd, p); err != unix.EINTR {
			break
		}
	}
	n = max(n, 0)
	w.n += n
	switch {
	case err == unix.EAGAIN || err == nil && n < len(p):
		w.full = true
		return n, errTurn
	case err != nil:
		w.err = err
	}
	return n, err
}
