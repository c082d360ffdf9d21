package guest

import (
	"context"
	"net"
	"sync"
)

// warmStreams is how many streams a [Warm] has open ahead of their use.
const warmStreams = 8

// Warm is a [Dialer] that has streams to [ForwardPort] open before they are asked
// for, once one was: a forwarded connection does not wait for the way to the guest
// and back that a new stream takes. Close it when the VM is gone, or sooner.
type Warm struct {
	Dialer

	mu     sync.Mutex
	idle   []net.Conn
	due    int // being dialed
	closed bool
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// NewWarm returns a dialer that dials with d.
func NewWarm(d Dialer) *Warm {
	w := &Warm{Dialer: d}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Dial returns a stream that is open already, or opens one.
func (w *Warm) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	if port != ForwardPort {
		return w.Dialer.Dial(ctx, port)
	}
	w.mu.Lock()
	var conn net.Conn
	if n := len(w.idle); n > 0 {
		conn, w.idle = w.idle[n-1], w.idle[:n-1]
	}
	w.fill()
	w.mu.Unlock()
	if conn != nil {
		if _, err := conn.Write(nil); err == nil { // fails where the guest has ended it
			return conn, nil
		}
		conn.Close()
	}
	return w.Dialer.Dial(ctx, port)
}

// fill has streams opened up to the number there should be. w.mu is held.
func (w *Warm) fill() {
	for ; !w.closed && len(w.idle)+w.due < warmStreams; w.due++ {
		w.wg.Go(func() {
			conn, err := w.Dialer.Dial(w.ctx, ForwardPort)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.due--
			switch {
			case err != nil: // the next one who asks tries again
			case w.closed:
				conn.Close()
			default:
				w.idle = append(w.idle, conn)
			}
		})
	}
}

// Close closes the streams that nobody has asked for.
func (w *Warm) Close() error {
	w.cancel()
	w.mu.Lock()
	w.closed = true
	for _, c := range w.idle {
		c.Close()
	}
	w.idle = nil
	w.mu.Unlock()
	w.wg.Wait()
	return nil
}
