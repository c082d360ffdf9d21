//go:build unix

package netstack

import (
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// turn is about how much is written at a time. What the guest sends meanwhile waits,
// and so does its acknowledgement.
const turn = 256 << 10 // bytes

// toHost moves what the guest sends to the host's socket until its end: from where
// it was put when it came, with no buffer between.
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
	// The endpoint is locked while it is read, so that nothing may wait there. Where
	// the socket takes nothing, its poller calls again when it does.
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

// turnWriter writes to a socket what it takes at once, up to a turn.
type turnWriter struct {
	fd   int
	n    int   // bytes written
	full bool  // the socket takes no more now
	err  error // of the socket
}

// errTurn ends a turn. What was not written stays where it is.
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
