package hvtest

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// The context identifiers of the ends of a fake vsock.
const (
	hostCID  = 2
	guestCID = 3
)

// backlog is how many streams may wait in a listener's queue.
const backlog = 128

// ports connects the host and the guest of one VM. It holds the listeners of both and the
// streams between them.
type ports struct {
	mu        sync.Mutex
	closed    bool
	listeners map[Addr]*listener
	conns     map[*conn]struct{} // host ends
	next      uint32             // port for the next dialler
	changed   chan struct{}      // closed and replaced at each new listener and at the end
}

func newPorts() *ports {
	return &ports{
		listeners: map[Addr]*listener{}, conns: map[*conn]struct{}{},
		next: 1 << 30, changed: make(chan struct{}),
	}
}

func (p *ports) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *ports) listen(a Addr) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, opError("listen", a, net.ErrClosed)
	}
	if p.listeners[a] != nil {
		return nil, opError("listen", a, syscall.EADDRINUSE)
	}
	l := &listener{ports: p, addr: a, queue: make(chan *conn, backlog), done: make(chan struct{})}
	p.listeners[a] = l
	p.wake()
	return l, nil
}

// dial connects to a listener at to. As in the kernel, the stream is established before it is
// accepted.
func (p *ports) dial(from uint32, to Addr) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, opError("dial", to, net.ErrClosed)
	}
	l := p.listeners[to]
	if l == nil {
		return nil, opError("dial", to, syscall.ECONNREFUSED)
	}
	p.next++
	var near, far *conn
	// The stream is recorded until both ends are closed, so that the VM's end resets it.
	open := 2
	closed := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if open--; open == 0 {
			delete(p.conns, near)
		}
	}
	near, far = newPipe(Addr{from, p.next}, to, closed, closed)
	select {
	case l.queue <- far:
	default:
		return nil, opError("dial", to, syscall.ECONNREFUSED)
	}
	p.conns[near] = struct{}{}
	return near, nil
}

// await blocks until somebody listens at the address.
func (p *ports) await(ctx context.Context, a Addr) error {
	for {
		p.mu.Lock()
		found, closed, changed := p.listeners[a] != nil, p.closed, p.changed
		p.mu.Unlock()
		switch {
		case found:
			return nil
		case closed:
			return opError("await", a, net.ErrClosed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return opError("await", a, context.Cause(ctx))
		}
	}
}

// close resets every stream and closes every listener.
func (p *ports) close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	listeners, conns := p.listeners, p.conns
	p.listeners, p.conns = map[Addr]*listener{}, map[*conn]struct{}{}
	p.wake()
	p.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	for c := range conns {
		c.reset()
	}
}

// listener accepts streams at a port.
type listener struct {
	ports *ports
	addr  Addr
	queue chan *conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, opError("accept", l.addr, net.ErrClosed)
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, opError("accept", l.addr, net.ErrClosed)
	}
}

// Close ends the listening and resets streams that wait to be accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.ports.mu.Lock()
		if l.ports.listeners[l.addr] == l {
			delete(l.ports.listeners, l.addr)
		}
		close(l.done)
		l.ports.mu.Unlock()
		// No dial can queue any more: it takes the lock and finds no listener.
		for {
			select {
			case c := <-l.queue:
				c.reset()
			default:
				return
			}
		}
	})
	return nil
}

func opError(op string, a Addr, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Addr: a, Err: err}
}
