package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	maxTCP = 8192 // connections of the guest at a time
	// maxDials is how many of them may be in the making: those to an address
	// that does not answer take long, and must not keep others waiting.
	maxDials = 1024
	// dialTimeout is about how long Linux tries.
	dialTimeout = 2 * time.Minute
)

// forwardTCP has the guest's connections go where they want to.
func (n *Network) forwardTCP() {
	f := tcp.NewForwarder(n.stack, 0, 2*maxDials, n.acceptTCP)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		if _, err := n.target(id.LocalAddress); err != nil {
			return false // which resets it
		}
		return f.HandlePacket(id, pkt)
	})
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
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		// Neither side has anything faster than Read and Write.
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buf)
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

// buffers are for copying: large ones, because the guest's frames are.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 128<<10)
	return &b
}}
