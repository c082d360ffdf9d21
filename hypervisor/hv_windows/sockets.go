package hvwindows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dialRetry is the time between two tries of a dial while the guest boots. Nothing tells when
// its driver is there.
const dialRetry = 50 * time.Millisecond

// sockets are a VM's streams and listeners. They end with the VM.
type sockets struct {
	vm *vm

	mu     sync.Mutex
	closed bool
	seen   bool // the guest has opened or accepted a stream
	ports  map[uint32]bool
	open   map[interface{ Close() error }]struct{}
}

func (s *sockets) init(v *vm) {
	s.vm, s.ports, s.open = v, map[uint32]bool{}, map[interface{ Close() error }]struct{}{}
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
		refused := errors.Is(err, syscall.ECONNREFUSED)
		if !refused {
			return nil, explain(err)
		}
		// A pause may have begun meanwhile, in which nobody answers.
		if !early && !s.vm.isHeld() {
			return nil, fmt.Errorf("nobody listens: %w", syscall.ECONNREFUSED)
		}
		select {
		case <-time.After(dialRetry):
		case <-ctx.Done():
		case <-s.vm.alive.Done():
		}
	}
}

// connect asks Windows for a stream, beside the caller: it may answer late, or never while the
// guest boots. A stream that comes too late is closed.
func (s *sockets) connect(ctx context.Context, port uint32) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	connected := make(chan result)
	gaveUp := make(chan struct{})
	go func() {
		c, err := s.vm.host.Dial(ctx, s.vm.runtime, port)
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
		held, changed := v.held, v.changed
		v.mu.Unlock()
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-v.alive.Done():
		}
	}
}

// track has a stream end with the VM.
func (s *sockets) track(conn net.Conn) (net.Conn, error) {
	half, ok := conn.(halfConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("half of a %T cannot be closed", conn)
	}
	c := &stream{half, s}
	if !s.add(c, true) {
		half.Close()
		return nil, fmt.Errorf("the VM %s is off: %w", s.vm.cfg.Name, net.ErrClosed)
	}
	return c, nil
}

// add remembers what the VM's end has to close. It returns false if that has been.
func (s *sockets) add(c interface{ Close() error }, ofGuest bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.seen = s.seen || ofGuest
	s.open[c] = struct{}{}
	return true
}

func (s *sockets) remove(c interface{ Close() error }) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// close ends all listeners and streams.
func (s *sockets) close() {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil // which remove takes for an empty one
	s.mu.Unlock()
	for c := range open {
		c.Close()
	}
}

// halfConn is a stream of which one direction can be closed.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// stream is a stream to or from the guest.
type stream struct {
	halfConn
	sockets *sockets
}

// Read takes an empty buffer too, for which Hyper-V's sockets panic.
func (c *stream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return c.halfConn.Read(b)
}

func (c *stream) Close() error {
	c.sockets.remove(c)
	return c.halfConn.Close()
}

func (s *sockets) listen(ctx context.Context, port uint32) (net.Listener, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.ports[port] {
		s.mu.Unlock()
		return nil, syscall.EADDRINUSE
	}
	s.ports[port] = true
	s.mu.Unlock()
	theirs, err := s.vm.host.Listen(s.vm.runtime, port)
	if err != nil {
		s.free(port)
		return nil, explain(err)
	}
	l := &listener{Listener: theirs, sockets: s, port: port}
	if !s.add(l, false) {
		l.Close()
		return nil, net.ErrClosed
	}
	return l, nil
}

func (s *sockets) free(port uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ports, port)
}

// listener accepts streams at a port of the host.
type listener struct {
	net.Listener
	sockets *sockets
	port    uint32
	closed  atomic.Bool
	once    sync.Once
	err     error
}

// Accept returns the next stream.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		if l.closed.Load() { // of which Windows has several errors
			err = net.ErrClosed
		}
		return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: err}
	}
	return l.sockets.track(c)
}

// Close frees the port.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.closed.Store(true)
		l.sockets.remove(l)
		l.err = l.Listener.Close()
		l.sockets.free(l.port)
	})
	return l.err
}

// Addr is the host's address.
func (l *listener) Addr() net.Addr { return addr{l.port} }

// addr is an address of the host in its VM's vsock.
type addr struct{ port uint32 }

func (addr) Network() string  { return "vsock" }
func (a addr) String() string { return fmt.Sprintf("host(2):%d", a.port) }
