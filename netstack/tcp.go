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
	maxTCP = 4096 // connections of the guest at a time
	// maxDials is how many of them may be in the making: those to an address
	// that does not answer take long, and must not keep others waiting.
	maxDials = 1024
	// tcpBuffer is how much a connection may hold in either direction, in bytes.
	tcpBuffer = 1 << 20
	// dialTimeout is about how long Linux tries.
	dialTimeout = 2 * time.Minute
)

// forwardTCP has the guest's connections go where they want to.
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
			return false // which resets it
		}
		return f.HandlePacket(id, pkt)
	})
	return nil
}

// acceptTCP connects to where the guest wants to, and takes its connection once
// that has worked: the guest sees a refusal as one.
func (n *Network) acceptTCP(r *tcp.ForwarderRequest) {
	to, err := n.target(r.ID().LocalAddress)
	if err != nil || !n.tcp.enter() {
		r.Complete(true)
		return
	}
	defer n.tcp.leave()
	if !n.dials.enter() {
		r.Complete(true)
		return
	}
	out, err := dialTCP(to, r.ID().LocalPort)
	n.dials.leave()
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
	ep.SocketOptions().SetKeepAlive(true) // the guest may be gone without a word
	join(gonet.NewTCPConn(&wq, ep), out)
}

// dialTCP connects to the first address that takes it.
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

// halfCloser is a connection of which one direction can be closed.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// join copies between two connections until both directions have ended, and
// closes both. The end of one direction is passed on as such; a failure ends all.
func join(a, b halfCloser) {
	var wg sync.WaitGroup
	pipe := func(to, from halfCloser) {
		err := pump(to, from)
		if err == nil {
			err = to.CloseWrite()
		}
		if err != nil {
			a.Close()
			b.Close()
		}
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
	a.Close()
	b.Close()
}

const (
	smallBuffer = 8 << 10 // bytes, for connections on which little happens
	largeBuffer = 128 << 10
)

// pump copies until the end of from. Its buffer grows with what comes at a time
// and shrinks again: thousands of connections may stand open, and the guest's
// frames are large.
func pump(to io.Writer, from io.Reader) error {
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
		case n == len(buf) && n < largeBuffer:
			buf = make([]byte, 4*n)
		case n < smallBuffer && len(buf) > smallBuffer:
			buf = make([]byte, smallBuffer)
		}
	}
}
