package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// dialTimeout bounds the dial to the guest.
const dialTimeout = 20 * time.Second

// listenTCP opens a port for connections.
func (p *port) listenTCP(ctx context.Context, at netip.AddrPort) (opened, error) {
	family := "tcp4"
	if at.Addr().Is6() {
		family = "tcp6"
	}
	l, err := new(net.ListenConfig).Listen(ctx, family, at.String())
	if err != nil {
		return opened{}, err
	}
	target := &p.target4
	if at.Addr().Is6() {
		target = &p.target6
	}
	p.f.wg.Go(func() { p.accept(ctx, l, func() Target { return *target.Load() }) })
	return opened{l.Addr().String(), l}, nil
}

// openSocket opens a unix socket unless it is open.
func (p *port) openSocket(ctx context.Context) {
	if len(p.open) > 0 {
		return
	}
	p.reason = ""
	l, err := listenUnix(ctx, p.plan.path)
	if err != nil {
		p.reason = err.Error()
		return
	}
	p.f.wg.Go(func() { p.accept(ctx, l, func() Target { return *p.target4.Load() }) })
	p.open = []opened{{p.plan.path, l}}
}

// listenUnix listens on a path, for this user only. It replaces a socket that nobody serves
// any more.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	switch fi, err := os.Lstat(path); {
	case err != nil: // most likely it does not exist
	case fi.Mode()&os.ModeSocket == 0:
		return nil, errors.New(path + " is there already, and is no socket")
	default:
		c, err := new(net.Dialer).DialContext(ctx, Unix, path)
		if err == nil {
			c.Close()
			return nil, errors.New(path + " is served by another program of the host")
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			os.Remove(path)
		}
	}
	// Created in a private directory, so that nobody connects before its mode is set.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".lsub-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "s")
	l, err := net.ListenUnix(Unix, &net.UnixAddr{Name: temp, Net: Unix})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(temp, 0o600); err == nil {
		err = os.Link(temp, path) // fails if the path exists
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &unixListener{l, path}, nil
}

// unixListener removes its socket on Close.
type unixListener struct {
	net.Listener
	path string
}

func (l *unixListener) Close() error {
	os.Remove(l.path)
	return l.Listener.Close()
}

// accept serves a listener's connections until it is closed.
func (p *port) accept(ctx context.Context, l net.Listener, target func() Target) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// Too many files are open: some have to be closed first.
			p.f.conns.Warn("connections are not accepted", "at", l.Addr(), "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		p.f.carry(ctx, &p.stats, c, func(ctx context.Context) (Stream, error) {
			if client, ok := c.RemoteAddr().(*net.TCPAddr); ok {
				if err := p.f.allow(TCP, client.AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()); err != nil {
					return Stream{}, err
				}
			}
			return p.f.cfg.Guest.Connect(ctx, target())
		})
	}
}

// allow tells whether a client on the host may use a port; it logs why not.
func (f *Forwarder) allow(network string, client, at netip.AddrPort) error {
	if f.cfg.Allow == nil {
		return nil
	}
	err := f.cfg.Allow(network, client, at)
	if err != nil {
		f.conns.Warn("a connection is refused", "network", network, "at", at, "why", err)
	}
	return err
}

// carry relays a connection of the host to a stream from dial, in the background.
func (f *Forwarder) carry(ctx context.Context, st *stats, c net.Conn, dial func(context.Context) (Stream, error)) {
	st.connections.Add(1)
	if !f.conns.TryAcquire() {
		st.failed.Add(1)
		reset(c)
		return
	}
	st.active.Add(1)
	f.wg.Go(func() {
		defer f.conns.Release()
		defer st.active.Add(-1)
		dialing, cancel := context.WithTimeout(ctx, dialTimeout)
		stream, err := dial(dialing)
		cancel()
		if err != nil {
			st.failed.Add(1)
			f.log.Debug("a connection finds no way into the guest", "err", err)
			reset(c)
			return
		}
		r := &relay{conn: c, stream: stream.Conn, stats: st}
		stop := context.AfterFunc(ctx, r.cut)
		defer stop()
		if err := r.run(stream.Opened); err != nil {
			st.failed.Add(1)
			f.log.Debug("a connection is refused in the guest", "err", err)
		}
	})
}

// reset ends a connection so that its peer sees a failure.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
