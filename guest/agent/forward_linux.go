package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/procfs"
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

// ServeForwards serves forwarded connections on a listening vsock socket until
// that fails.
func (a *Agent) ServeForwards(listener int) error {
	loop, err := relay.OpenLoop(procfs.VsockCPU(), a.log)
	if err != nil {
		return err
	}
	defer loop.Close()
	return loop.Serve(listener, a.cfg.Secret, func(in relay.Incoming, said []byte) { a.beginForward(loop, in, said) })
}

// started answers a request that is served.
var started = guest.Frame(guest.FrameStarted, nil)

// beginForward serves a stream that has said something, on the loop's thread.
// A request for a TCP connection, the usual one, it serves at once.
func (a *Agent) beginForward(loop *relay.Loop, in relay.Incoming, said []byte) {
	var req guestv1.ForwardRequest
	head, whole, err := guest.ParseMessage(said, guest.FrameRequest, &req)
	if err != nil || !whole || !a.beginTCP(&req, in, head) {
		said := bytes.Clone(said)
		stream := in.Conn()
		go a.serveForward(loop, stream, said)
	}
}

// beginTCP serves a request that can be served without waiting.
func (a *Agent) beginTCP(req *guestv1.ForwardRequest, in relay.Incoming, head []byte) bool {
	to := req.GetConnect()
	if to.GetNetwork() != "tcp" || req.Version != a.cfg.Version {
		return false
	}
	addr, err := netip.ParseAddrPort(to.Address)
	if err != nil {
		return false
	}
	d, release, err := a.acquire(to.Distro)
	if err != nil {
		return false
	}
	s, err := d.network()
	if err != nil || s != nil { // another thread is to make the socket
		release()
		return false
	}
	conn, pending, err := relay.StartTCP(unix.Socket, addr)
	if err != nil || pending {
		release()
		if pending {
			unix.Close(conn) // it may take a while: from the beginning, elsewhere
		}
		return false
	}
	in.Relay(conn, started, head, release)
	return true
}

// serveForward serves one stream, of which said was read already: its request,
// then bytes as they are.
func (a *Agent) serveForward(loop *relay.Loop, stream *relay.Conn, said []byte) {
	var req guestv1.ForwardRequest
	stream.SetReadDeadline(time.Now().Add(requestTimeout))
	head, err := readRequest(said, stream, &req)
	if err != nil {
		a.log.Warn("forwarded stream without a request", "err", err)
		stream.Close()
		return
	}
	stream.SetReadDeadline(time.Time{})
	if err := a.forward(loop, &req, stream, head); err != nil {
		guest.NewWriter(stream).SendMessage(guest.FrameError, guest.ErrorMessage(err))
		stream.CloseWrite() // so that the host reads the answer before the end
		stream.SetReadDeadline(time.Now().Add(requestTimeout))
		io.Copy(io.Discard, stream)
		stream.Close()
	}
}

// readRequest reads the request at the beginning of a stream, of which said was read
// already. head is what was read behind it.
func readRequest(said []byte, stream io.Reader, req *guestv1.ForwardRequest) (head []byte, err error) {
	rest := bytes.NewReader(said)
	head, err = guest.ReadMessage(io.MultiReader(rest, stream), guest.FrameRequest, req)
	return append(head, said[len(said)-rest.Len():]...), err
}

// forward serves the stream, which it closes. With an error, the host has yet to
// be told. head came behind the request.
func (a *Agent) forward(loop *relay.Loop, req *guestv1.ForwardRequest, stream *relay.Conn, head []byte) error {
	if req.Version != a.cfg.Version {
		return guest.OtherVersion(a.cfg.Version, req.Version)
	}
	var conn io.Closer
	var err error
	release := func() {}
	switch k := req.Kind.(type) {
	case *guestv1.ForwardRequest_Connect:
		conn, release, err = a.connect(k.Connect)
	case *guestv1.ForwardRequest_Accept:
		conn, err = a.pending.take(k.Accept)
	case *guestv1.ForwardRequest_Listen:
		a.serveListen(stream, k.Listen)
		return nil
	default:
		err = guest.NothingAsked()
	}
	if err != nil {
		return err
	}
	if udp, ok := conn.(*net.UDPConn); ok {
		defer release()
		if _, err := stream.Write(started); err != nil {
			stream.Close()
			conn.Close()
			return nil
		}
		relay.Packets(stream, udp, head)
		return nil
	}
	fd, err := relay.Descriptor(conn)
	if err != nil {
		release()
		return err
	}
	sfd, err := relay.Descriptor(stream)
	if err != nil { // the stream is closed: nobody can be told
		unix.Close(fd)
		release()
		return nil
	}
	loop.Relay(sfd, fd, started, head, release)
	return nil
}

// connect connects to what listens in a distro, or in the VM's network. The
// distro stays up until release.
func (a *Agent) connect(to *guestv1.Connect) (conn io.Closer, release func(), err error) {
	d, release, err := a.acquire(to.Distro)
	if err != nil {
		return nil, nil, err
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
			return inNetns(s, func() (*net.UDPConn, error) { return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr)) })
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

// acquire keeps the distro of an id up until release. Without an id d is nil.
func (a *Agent) acquire(id string) (d *distro, release func(), err error) {
	if id == "" {
		return nil, func() {}, nil
	}
	if d, err = a.running(id); err != nil {
		return nil, nil, err
	}
	if !d.acquire(&d.forwards) {
		return nil, nil, guest.NotRunning()
	}
	return d, func() { d.release(&d.forwards) }, nil
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
			if d.currentThread() != nil {
				return d, nil
			}
		}
	}
	return nil, guest.NotRunning()
}

// connectUnix connects to a unix socket in the distro.
func (d *distro) connectUnix(name string) (net.Conn, error) {
	if err := checkSocketPath(name); err != nil {
		return nil, err
	}
	return onNSThread(context.Background(), d, func() (net.Conn, error) {
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
