package hvtest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes one side may write before the other reads. It is as small as in a
// real vsock, so that a test over the fake meets a full one.
const window = 256 << 10

// Addr is the address of one end of a fake vsock stream.
type Addr struct{ CID, Port uint32 }

// Network is "vsock".
func (Addr) Network() string { return "vsock" }

func (a Addr) String() string { return fmt.Sprintf("vm(%d):%d", a.CID, a.Port) }

// half is one direction of a stream: a bounded buffer between a writer and a reader.
type half struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	eof     bool          // nothing more will be written
	rerr    error         // error for the reader, before any data
	werr    error         // error for the writer
	changed chan struct{} // closed and replaced at each change
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

// change runs f under the lock and wakes the waiters.
func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.wake()
}

func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// tryRead reads the available bytes. If there are none, it returns a channel to wait on.
func (h *half) tryRead(p []byte) (n int, wait <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.rerr != nil:
		return 0, nil, h.rerr
	case h.buf.Len() > 0 || len(p) == 0:
		n, _ = h.buf.Read(p)
		h.wake()
		return n, nil, nil
	case h.eof:
		return 0, nil, io.EOF
	}
	return 0, h.changed, nil
}

// tryWrite writes as much as fits. If nothing fits, it returns a channel to wait on.
func (h *half) tryWrite(p []byte) (n int, wait <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.werr != nil {
		return 0, nil, h.werr
	}
	n = min(len(p), window-h.buf.Len())
	if n == 0 && len(p) > 0 {
		return 0, h.changed, nil
	}
	h.buf.Write(p[:n])
	h.wake()
	return n, nil, nil
}

// conn is one end of a stream. It is a net.Conn with CloseWrite.
type conn struct {
	rd, wr        *half
	local, remote Addr
	rdl, wdl      deadline
	closed        func() // called once, by Close
	once          sync.Once
}

// newPipe returns the two ends of a stream. It calls the functions when their end is closed.
func newPipe(a, b Addr, aClosed, bClosed func()) (*conn, *conn) {
	x, y := newHalf(), newHalf()
	return &conn{rd: x, wr: y, local: a, remote: b, rdl: newDeadline(), wdl: newDeadline(), closed: aClosed},
		&conn{rd: y, wr: x, local: b, remote: a, rdl: newDeadline(), wdl: newDeadline(), closed: bClosed}
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Read(p []byte) (int, error) {
	for {
		expired := c.rdl.wait()
		select {
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		default:
		}
		n, wait, err := c.rd.tryRead(p)
		if wait == nil {
			return n, err
		}
		select {
		case <-wait:
		case <-expired:
		}
	}
}

func (c *conn) Write(p []byte) (int, error) {
	done := 0
	for {
		expired := c.wdl.wait()
		select {
		case <-expired:
			return done, os.ErrDeadlineExceeded
		default:
		}
		n, wait, err := c.wr.tryWrite(p[done:])
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
		if wait == nil {
			continue // a part was written
		}
		select {
		case <-wait:
		case <-expired:
		}
	}
}

// CloseWrite ends the stream in this direction: the peer reads io.EOF.
func (c *conn) CloseWrite() error {
	var err error
	c.wr.change(func() {
		if err = c.wr.werr; err == nil {
			c.wr.eof, c.wr.werr = true, syscall.EPIPE
		}
	})
	return err
}

// Close ends the stream: the peer can read the rest, but its writes fail.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.rd.change(func() {
			c.rd.rerr = net.ErrClosed
			if c.rd.werr == nil {
				c.rd.werr = syscall.EPIPE
			}
		})
		c.wr.change(func() { c.wr.eof, c.wr.werr = true, net.ErrClosed })
		c.closed()
	})
	return nil
}

// reset cuts the stream for both ends, as the end of a VM does.
func (c *conn) reset() {
	for _, h := range []*half{c.rd, c.wr} {
		h.change(func() {
			if h.rerr == nil {
				h.rerr = syscall.ECONNRESET
			}
			if h.werr == nil {
				h.werr = syscall.ECONNRESET
			}
		})
	}
}

func (c *conn) SetDeadline(t time.Time) error      { c.rdl.set(t); c.wdl.set(t); return nil }
func (c *conn) SetReadDeadline(t time.Time) error  { c.rdl.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.wdl.set(t); return nil }

// deadline is a time that can be waited for and moved.
type deadline struct{ *deadlineState }

type deadlineState struct {
	mu      sync.Mutex
	timer   *time.Timer
	expired chan struct{} // closed at that time
}

func newDeadline() deadline { return deadline{&deadlineState{expired: make(chan struct{})}} }

func (d *deadlineState) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expired
}

// set moves the deadline. A waiting reader notices an earlier time: it waits on the channel
// that the timer closes, unless that was closed already.
func (d *deadlineState) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.expired // the timer has fired: let it finish
	}
	d.timer = nil
	past := false
	select {
	case <-d.expired:
		past = true
	default:
	}
	if past {
		d.expired = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	if wait := time.Until(t); wait > 0 {
		ch := d.expired
		d.timer = time.AfterFunc(wait, func() { close(ch) })
	} else {
		close(d.expired)
	}
}
