package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	maxTCP = 4096 // from the guest at a time
	// maxDials bounds connections that are being dialed. Dials to a silent address take long,
	// and must not block others.
	maxDials = 1024
	// tcpBuffer is the buffer of a connection in either direction, in bytes, while there are
	// few connections.
	tcpBuffer = 1 << 20
	// dialTimeout is about as long as Linux tries.
	dialTimeout = 2 * time.Minute
)

// forwardTCP forwards the guest's connections.
func (n *Network) forwardTCP() error {
	for _, option := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer, Max: tcpBuffer},
		&tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer, Max: tcpBuffer},
	} {
		if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return errors.New(err.String())
		}
	}
	f := tcp.NewForwarder(n.stack, 0, 2*maxDials, n.acceptTCP)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		if _, err := n.target(id.LocalAddress); err != nil {
			return false // the stack then resets the connection
		}
		return f.HandlePacket(id, pkt)
	})
	return nil
}

// acceptTCP connects to the guest's destination, and accepts the guest's connection only
// after that: so the guest sees a refusal.
func (n *Network) acceptTCP(r *tcp.ForwarderRequest) {
	to, err := n.target(r.ID().LocalAddress)
	if err != nil || !n.tcp.TryAcquire() {
		r.Complete(true)
		return
	}
	defer n.tcp.Release()
	if !n.dials.TryAcquire() {
		r.Complete(true)
		return
	}
	out, err := dialTCP(to, r.ID().LocalPort)
	n.dials.Release()
	if err != nil {
		n.log.Debug("netstack: a connection of the guest fails", "err", err)
		r.Complete(true)
		return
	}
	defer out.Close()
	var wq waiter.Queue
	ep, tcpErr := r.CreateEndpoint(&wq)
	r.Complete(false)
	if tcpErr != nil { // the guest has given up
		n.log.Debug("netstack: a connection of the guest fails", "err", tcpErr)
		return
	}
	options := ep.SocketOptions()
	options.SetKeepAlive(true) // the guest may vanish silently
	socket, buffer := room(n.tcp.InUse())
	if socket < tcpBuffer {
		options.SetSendBufferSize(int64(socket), true)
		options.SetReceiveBufferSize(int64(socket), true)
	}
	host := hostConn{out}
	defer n.out.add(out.LocalAddr(), host.reset)()
	join(guestConn{gonet.NewTCPConn(&wq, ep), ep, &wq}, host, buffer)
}

// room returns a connection's buffers in bytes, by the number of connections: of its socket,
// and between two sockets, each way. A guest with the maximum number of connections that
// neither reads nor sends to readers makes the host hold some 700 MB.
func room(conns int) (socket, buffer int) {
	switch {
	case conns <= 64:
		return tcpBuffer, largeBuffer
	case conns <= 512:
		return tcpBuffer / 4, largeBuffer / 4
	}
	return tcpBuffer / 32, smallBuffer
}

// guestConn is the guest's end of a connection.
type guestConn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
	wq *waiter.Queue // signals events of ep
}

func (c guestConn) reset() {
	c.ep.Abort()
	c.Close() // wakes the waiters
}

// hostConn is the host's end of a connection.
type hostConn struct{ *net.TCPConn }

func (c hostConn) reset() {
	c.SetLinger(0)
	c.Close()
}

// dialTCP connects to the first address that accepts.
func dialTCP(to []netip.Addr, port uint16) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var errs error
	for _, a := range to {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

// end is an end of a connection. One of its directions can be closed.
type end interface {
	net.Conn
	CloseWrite() error
	reset() // closes it so that the other side sees a failure
}

// join copies between two connections until both directions have ended, and closes both. It
// passes on the end of one direction as such, and a failure as a reset of both. A read takes
// at most buffer bytes.
func join(a, b end, buffer int) {
	var wg sync.WaitGroup
	pipe := func(to, from end) {
		err := move(to, from, buffer)
		if err == nil {
			err = to.CloseWrite()
		}
		if err != nil {
			a.reset()
			b.reset()
		}
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
	a.Close()
	b.Close()
}

// move copies until the end of from, in the best way for both.
func move(to, from end, buffer int) error {
	guest, ok := from.(guestConn)
	if host, is := to.(hostConn); ok && is {
		return guest.toHost(host, buffer)
	}
	return pump(to, from, buffer)
}

const (
	smallBuffer = 8 << 10 // bytes, for connections with little traffic
	largeBuffer = 128 << 10
)

// pump copies until the end of from. Its buffer grows with the size of reads, up to most
// bytes, and shrinks again: thousands of connections may be open, and the guest's frames are
// large.
func pump(to io.Writer, from io.Reader, most int) error {
	buf := make([]byte, smallBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == len(buf) && n < most:
			buf = make([]byte, 4*n)
		case n < smallBuffer && len(buf) > smallBuffer:
			buf = make([]byte, smallBuffer)
		}
	}
}
