package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/agent/nsthread"
	"github.com/lsub/lsub/guest/agent/relay"
	"github.com/lsub/lsub/guest/guestv1"
)

// serveListen takes connections for the host for as long as the stream lasts.
func (a *Agent) serveListen(stream *relay.Conn, req *guestv1.Listen) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, stream) // the host says nothing more, but its end
		cancel()
	}()
	w := guest.NewWriter(stream)
	if err := a.listenFor(ctx, w, req); err != nil && ctx.Err() == nil {
		w.SendMessage(guest.FrameError, guest.ErrorMessage(err))
		stream.CloseWrite()
		<-ctx.Done()
	}
	cancel()
	stream.Close()
}

func (a *Agent) listenFor(ctx context.Context, w *guest.Writer, req *guestv1.Listen) error {
	if req.Network == "unix" {
		return a.listenUnixFor(ctx, w, req)
	}
	if req.Network == "udp" {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "UDP cannot be forwarded from a distro to the host")
	}
	addr, err := netip.ParseAddrPort(req.Address)
	if err != nil || req.Network != "tcp" {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no address of network %q that can be listened on", req.Address, req.Network)
	}
	listen := func(s *netns) (net.Listener, error) {
		lc := net.ListenConfig{KeepAlive: -1}
		return inNetns(s, func() (net.Listener, error) { return lc.Listen(ctx, "tcp", addr.String()) })
	}
	if req.Distro == "" {
		l, err := listen(nil)
		if err != nil {
			return err
		}
		return a.announce(ctx, w, l)
	}
	// As soon as the network stands: the distro's services may want it at their start.
	return a.listenInDistro(ctx, w, req.Distro, func(d *distro) (net.Listener, error) {
		if err := await(ctx, d.networked); err != nil {
			return nil, err
		}
		s, err := d.network()
		if err != nil {
			return nil, nil
		}
		l, err := listen(s)
		if errors.Is(err, nsthread.ErrClosed) {
			return nil, nil
		}
		return l, err
	})
}

// listenUnixFor listens on a unix socket in a distro.
func (a *Agent) listenUnixFor(ctx context.Context, w *guest.Writer, req *guestv1.Listen) error {
	if err := checkSocketPath(req.Address); err != nil {
		return err
	}
	return a.listenInDistro(ctx, w, req.Distro, func(d *distro) (net.Listener, error) {
		if err := await(ctx, d.ready); err != nil || d.err != nil {
			return nil, err
		}
		return d.listenUnix(ctx, req.Address)
	})
}

// listenInDistro listens in a distro whenever it runs. Where it does not come up,
// listen returns nil.
func (a *Agent) listenInDistro(ctx context.Context, w *guest.Writer, id string, listen func(*distro) (net.Listener, error)) error {
	if err := checkDistro(&guestv1.Distro{Id: id}); err != nil {
		return err
	}
	for {
		a.mu.Lock()
		changed, d := a.changed, a.distros[id]
		a.mu.Unlock()
		if d == nil {
			if err := await(ctx, changed); err != nil {
				return err
			}
			continue
		}
		l, err := listen(d)
		if err != nil {
			return err
		}
		if l != nil {
			here, gone := context.WithCancel(ctx)
			go func() {
				await(here, d.gone)
				gone()
			}()
			err = a.announce(here, w, l)
			over := here.Err() != nil // with the distro, or the host
			gone()
			if !over {
				return err
			}
		}
		if err := await(ctx, d.gone); err != nil {
			return err
		}
	}
}

// announce tells the host of each connection that l takes, until ctx is done.
// It closes l.
func (a *Agent) announce(ctx context.Context, w *guest.Writer, l net.Listener) error {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	if err := w.SendMessage(guest.FrameStarted, &guestv1.Started{}); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return ctx.Err()
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return err
		}
		id, err := a.pending.put(c)
		if err != nil {
			a.log.Warn("a connection to the host is refused", "at", l.Addr(), "err", err)
			c.Close()
			continue
		}
		if err := w.Send(guest.FrameAccepted, binary.BigEndian.AppendUint64(nil, id)); err != nil {
			return err
		}
	}
}

// listenUnix listens on a unix socket in the distro, which belongs to the
// distro's default user. One that nobody serves any more is replaced.
func (d *distro) listenUnix(ctx context.Context, name string) (net.Listener, error) {
	return onNSThread(ctx, d, func() (net.Listener, error) {
		who, err := account.ForCommand(&guestv1.Exec{Distro: d.spec})
		if err != nil {
			return nil, err
		}
		if err := removeStale(name); err != nil {
			return nil, err
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		old := unix.Umask(0o177) // this thread's alone
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		unix.Umask(old)
		if err == nil {
			err = unix.Lchown(name, int(who.UID), int(who.GID))
		}
		if err == nil {
			err = unix.Listen(fd, unix.SOMAXCONN)
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", name, err)
		}
		return net.FileListener(f)
	}, func(l net.Listener) { l.Close() })
}

// removeStale removes a unix socket that nobody serves, as the end of a distro
// leaves it. It returns an error where somebody does; any other file stays, for bind
// to say so.
func removeStale(name string) error {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err {
	case unix.ECONNREFUSED: // also of one that is being made, between its bind and its listen
		return unix.Unlink(name)
	case nil, unix.EAGAIN, unix.EPROTOTYPE:
		return fmt.Errorf("listen on %s: another program of the distro does", name)
	default:
		return fmt.Errorf("look at %s: %w", name, err)
	}
}

// fileConn makes a connection of a descriptor, which it takes over.
func fileConn(fd int, name string) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return net.FileConn(f)
}
