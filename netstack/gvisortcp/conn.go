package gvisortcp

import (
	"errors"
	"io"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// directWriter is as in package loopback.
type directWriter interface{ WriteNow(p [][]byte) (int, error) }

const turn = 256 << 10

var errTurn = errors.New("the turn is over")

// nowWriter writes what the socket takes at once, from where the stack has it.
type nowWriter struct {
	w    directWriter
	part [1][]byte
	n    int
	full bool
	err  error
}

func (w *nowWriter) Write(p []byte) (int, error) {
	if w.n >= turn || w.full {
		return 0, errTurn
	}
	w.part[0] = p
	n, err := w.w.WriteNow(w.part[:])
	w.n += n
	switch {
	case err != nil:
		w.err = err
	case n < len(p):
		w.full = true
		err = errTurn
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// WriteTo implements [io.WriterTo].
func (c *Conn) WriteTo(w io.Writer) (total int64, err error) {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	d, direct := w.(directWriter)
	for {
		var failure tcpip.Error
		now := nowWriter{w: d}
		if direct {
			_, failure = c.ep.Read(&now, tcpip.ReadOptions{})
			total += int64(now.n)
			if now.err != nil {
				return total, now.err
			}
		}
		if !direct || now.full {
			// The socket takes no more now: wait for it with a copy.
			buf := buffers.Get().(*[]byte)
			sw := tcpip.SliceWriter(*buf)
			var r tcpip.ReadResult
			r, failure = c.ep.Read(&sw, tcpip.ReadOptions{})
			if failure == nil {
				n, err := w.Write((*buf)[:r.Count])
				total += int64(n)
				if err != nil {
					buffers.Put(buf)
					return total, err
				}
			}
			buffers.Put(buf)
		}
		switch failure.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-readable
		case *tcpip.ErrClosedForReceive:
			return total, nil
		default:
			return total, &net.OpError{Op: "read", Net: "tcp", Err: errors.New(failure.String())}
		}
	}
}

// Write lets an empty slice ask whether the connection takes more.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		if s := tcp.EndpointState(c.ep.State()); s == tcp.StateError || s == tcp.StateClose {
			return 0, net.ErrClosed
		}
		return 0, nil
	}
	return c.TCPConn.Write(p)
}
