package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/relay"
	"github.com/lsub/lsub/guest/guestv1"
)

const (
	// connectTimeout bounds a connect within the VM. The host's client waits.
	connectTimeout = 10 * time.Second
	// requestTimeout bounds the rest of a request that has begun. A host may open
	// streams ahead of their use, so the beginning has no limit.
	requestTimeout = 10 * time.Second
)

// ServeForwards serves forwarded connections on l until l fails.
func (a *Agent) ServeForwards(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go a.serveForward(conn)
	}
}

// serveForward serves one stream: its request, then bytes as they are.
func (a *Agent) serveForward(conn net.Conn) {
	stream, ok := conn.(relay.Conn)
	if !ok {
		a.log.Error("a stream of this kind cannot be forwarded", "type", fmt.Sprintf("%T", conn))
		conn.Close()
		return
	}
	var req guestv1.ForwardRequest
	head, err := guest.ReadMessage(stream, guest.FrameRequest, &req)
	if err != nil {
		if err != io.EOF { // one that was opened ahead, and not used
			a.log.Warn("forwarded stream without a request", "err", err)
		}
		conn.Close()
		return
	}
	serve, err := a.forward(&req, stream, head)
	if err != nil {
		guest.NewWriter(conn).SendMessage(guest.FrameError, guest.ErrorMessage(err))
		stream.CloseWrite() // so that the host reads the answer before the end
		conn.SetReadDeadline(time.Now().Add(requestTimeout))
		io.Copy(io.Discard, conn)
		conn.Close()
		return
	}
	serve()
}

// forward returns what serves the stream once the host has been told. What it
// returns closes the stream. head came behind the request.
func (a *Agent) forward(req *guestv1.ForwardRequest, stream relay.Conn, head []byte) (serve func(), err error) {
	if req.Version != a.cfg.Version {
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_VERSION, "", "the VM runs lsub %s, this is lsub %s", a.cfg.Version, req.Version)
	}
	var conn io.Closer
	release := func() {}
	switch k := req.Kind.(type) {
	case *guestv1.ForwardRequest_Connect:
		conn, release, err = a.connect(k.Connect)
	case *guestv1.ForwardRequest_Accept:
		conn, err = a.arrivals.take(k.Accept)
	case *guestv1.ForwardRequest_Listen:
		return func() { a.listenForHost(stream, k.Listen) }, nil
	default:
		err = guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the stream asks for nothing")
	}
	if err != nil {
		return nil, err
	}
	return func() {
		defer release()
		if guest.NewWriter(stream).SendMessage(guest.FrameStarted, &guestv1.Started{}) != nil {
			stream.Close()
			conn.Close()
			return
		}
		switch c := conn.(type) {
		case *net.UDPConn:
			relay.Packets(stream, c, head)
		case relay.Conn:
			relay.Stream(stream, c, head)
		}
	}, nil
}

// connect connects to what listens in a distro, or in the VM's network. The
// distro stays up until release.
func (a *Agent) connect(to *guestv1.Connect) (conn io.Closer, release func(), err error) {
	release = func() {}
	var d *distro
	if to.Distro != "" {
		if d, err = a.running(to.Distro); err != nil {
			return nil, nil, err
		}
		if !d.use(&d.forwards) {
			return nil, nil, errDistroOff()
		}
		release = func() { d.leave(&d.forwards) }
	}
	if conn, err = d.connect(to); err != nil {
		release()
		return nil, nil, err
	}
	return conn, release, nil
}

// connect connects in the distro; in the VM's network where d is nil.
func (d *distro) connect(to *guestv1.Connect) (io.Closer, error) {
	switch to.Network {
	case "tcp", "udp":
		addr, err := netip.ParseAddrPort(to.Address)
		if err != nil {
			return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no address with a port", to.Address)
		}
		s, err := d.network()
		if err != nil {
			return nil, err
		}
		if to.Network == "udp" {
			return inSpace(s, func() (*net.UDPConn, error) { return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr)) })
		}
		ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
		defer cancel()
		return relay.DialTCP(ctx, s.socket, addr)
	case "unix":
		if d == nil {
			return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "a unix socket is in a distro")
		}
		return d.connectUnix(to.Address)
	}
	return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "unknown network %q", to.Network)
}

// running returns a distro that commands may enter, without starting it.
func (a *Agent) running(id string) (*distro, error) {
	if d := a.lookup(id); d != nil {
		select {
		case <-d.ready:
			if d.err == nil && !d.isStopping() {
				return d, nil
			}
		default: // its services may listen long before commands may enter
			if d.way() != nil {
				return d, nil
			}
		}
	}
	return nil, errDistroOff()
}

func errDistroOff() error {
	return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the distro does not run")
}

// connectUnix connects to a unix socket in the distro.
func (d *distro) connectUnix(name string) (net.Conn, error) {
	if err := checkSocketPath(name); err != nil {
		return nil, err
	}
	return onEntrance(context.Background(), d, func() (net.Conn, error) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		// EAGAIN is a server with too many waiting already.
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("connect to %s: %w", name, err)
		}
		return fileConn(fd, name)
	}, func(c net.Conn) { c.Close() })
}

// maxSocketPath is the longest path of a unix socket.
const maxSocketPath = 107

func checkSocketPath(name string) error {
	if !path.IsAbs(name) || len(name) > maxSocketPath {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no absolute path of at most %d bytes", name, maxSocketPath)
	}
	return nil
}
