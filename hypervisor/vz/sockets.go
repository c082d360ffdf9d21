package vz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// dialRetry is the time between two tries of a dial while the guest boots. Nothing tells when
// its vsock driver is there.
const dialRetry = 50 * time.Millisecond

// sockets are a VM's streams and listeners. The framework knows less of them than the
// contract promises.
type sockets struct {
	vm *vm

	mu        sync.Mutex
	closed    bool
	seen      bool // the guest has opened or accepted a stream
	listeners map[uint32]*listener
	streams   map[*stream]struct{}
}

func (s *sockets) init(v *vm) {
	s.vm, s.listeners, s.streams = v, map[uint32]*listener{}, map[*stream]struct{}{}
}

// Dial opens a stream to a port of the guest.
func (v *vm) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	c, err := v.sockets.dial(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("dial vsock port %d: %w", port, err)
	}
	return c, nil
}

// Listen accepts the streams that the guest opens to a port of the host.
func (v *vm) Listen(ctx context.Context, port uint32) (net.Listener, error) {
	l, err := v.sockets.listen(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return l, nil
}

// usable returns why neither Dial nor Listen can work, or nil.
func (s *sockets) usable(ctx context.Context) error {
	switch {
	case s.vm.alive.Err() != nil:
		return fmt.Errorf("the VM %s is off: %w", s.vm.cfg.Name, net.ErrClosed)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

func (s *sockets) dial(ctx context.Context, port uint32) (net.Conn, error) {
	for {
		if err := s.vm.awaitRunning(ctx); err != nil {
			return nil, err
		}
		conn, err := s.connect(ctx, port)
		if err == nil {
			return s.track(conn)
		}
		if gone := s.usable(ctx); gone != nil {
			return nil, gone
		}
		s.mu.Lock()
		early := !s.seen
		s.mu.Unlock()
		switch {
		case isWrongState(err): // it was paused meanwhile
		case !isRefused(err):
			return nil, explain(err)
		case !early:
			return nil, fmt.Errorf("nobody listens: %w", syscall.ECONNREFUSED)
		}
		select {
		case <-time.After(dialRetry):
		case <-ctx.Done():
		case <-s.vm.alive.Done():
		}
	}
}

// connect asks the framework for a stream. The framework knows no deadline; a stream that
// comes too late is closed.
func (s *sockets) connect(ctx context.Context, port uint32) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	connected := make(chan result)
	gaveUp := make(chan struct{})
	go func() {
		c, err := s.vm.machine.Connect(port)
		select {
		case connected <- result{c, err}:
		case <-gaveUp:
			if err == nil {
				c.Close()
			}
		}
	}()
	defer close(gaveUp)
	select {
	case r := <-connected:
		return r.conn, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.vm.alive.Done():
		return nil, net.ErrClosed
	}
}

// awaitRunning waits while the VM is paused.
func (v *vm) awaitRunning(ctx context.Context) error {
	for {
		if err := v.sockets.usable(ctx); err != nil {
			return err
		}
		v.mu.Lock()
		changed := v.changed
		v.mu.Unlock()
		if v.Paused() == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-v.alive.Done():
		}
	}
}

// track makes a stream of the framework into one that ends with the VM.
func (s *sockets) track(conn net.Conn) (net.Conn, error) {
	half, err := halfCloser(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := &stream{halfConn: half, sockets: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		half.Close()
		return nil, fmt.Errorf("the VM %s is off: %w", s.vm.cfg.Name, net.ErrClosed)
	}
	s.seen = true
	s.streams[c] = struct{}{}
	return c, nil
}

// stream is a stream to or from the guest.
type stream struct {
	halfConn
	sockets *sockets
}

func (c *stream) Close() error {
	c.sockets.mu.Lock()
	delete(c.sockets.streams, c)
	c.sockets.mu.Unlock()
	return c.halfConn.Close()
}

func (s *sockets) listen(ctx context.Context, port uint32) (net.Listener, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.listeners[port] != nil { // the framework would take it from its owner
		return nil, syscall.EADDRINUSE
	}
	theirs, err := s.vm.machine.Listen(port)
	if err != nil {
		return nil, explain(err)
	}
	l := &listener{sockets: s, port: port, theirs: theirs, accepted: make(chan net.Conn), done: make(chan struct{})}
	s.listeners[port] = l
	go l.run()
	return l, nil
}

// close ends all listeners and streams.
func (s *sockets) close() {
	s.mu.Lock()
	s.closed = true
	var listeners []*listener
	for _, l := range s.listeners {
		listeners = append(listeners, l)
	}
	var streams []*stream
	for c := range s.streams {
		streams = append(streams, c)
	}
	s.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	for _, c := range streams {
		c.Close()
	}
}

// listener accepts streams at a port of the host.
type listener struct {
	sockets  *sockets
	port     uint32
	theirs   net.Listener
	accepted chan net.Conn
	done     chan struct{}
	once     sync.Once
}

// run passes on what the framework accepts. Nobody waits for it: the binding's Accept does not
// return when its listener is closed (it does from the version after 3.7.1 on).
func (l *listener) run() {
	for {
		conn, err := l.theirs.Accept()
		if err != nil {
			return
		}
		c, err := l.sockets.track(conn)
		if err != nil {
			l.sockets.vm.log.Debug("a stream of the guest is closed", "port", l.port, "err", err)
			continue
		}
		select {
		case l.accepted <- c:
		case <-l.done:
			c.Close()
			return
		}
	}
}

// Accept returns the next stream.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
	default:
		select {
		case c := <-l.accepted:
			return c, nil
		case <-l.done:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close frees the port.
func (l *listener) Close() (err error) {
	l.once.Do(func() {
		l.sockets.mu.Lock()
		close(l.done)
		err = l.theirs.Close()
		delete(l.sockets.listeners, l.port)
		l.sockets.mu.Unlock()
	})
	if errors.Is(err, net.ErrClosed) {
		return nil // the VM's end has closed it
	}
	return err
}

// Addr is the host's address.
func (l *listener) Addr() net.Addr { return addr{port: l.port} }

// addr is an address of the host in its VM's vsock.
type addr struct{ port uint32 }

func (addr) Network() string  { return "vsock" }
func (a addr) String() string { return fmt.Sprintf("host(2):%d", a.port) }
