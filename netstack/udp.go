package netstack

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	maxUDP = 2048 // from the guest at a time
	// udpIdle is how long a flow is kept without a datagram.
	udpIdle       = 90 * time.Second
	maxUDPPayload = 65507 // bytes
)

// forwardUDP forwards the guest's datagrams and the answers. A flow is identified by the
// addresses and ports of both sides.
func (n *Network) forwardUDP() {
	f := udp.NewForwarder(n.stack, n.acceptUDP)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		if _, err := n.target(id.LocalAddress); err != nil {
			return false // the stack then reports it to the guest
		}
		return f.HandlePacket(id, pkt)
	})
}

// acceptUDP takes the first datagram of a flow. The next ones go to the endpoint that it
// creates.
func (n *Network) acceptUDP(r *udp.ForwarderRequest) {
	to, err := n.target(r.ID().LocalAddress)
	if err != nil || !n.udp.TryAcquire() {
		return
	}
	var wq waiter.Queue
	ep, udpErr := r.CreateEndpoint(&wq)
	if udpErr != nil {
		n.udp.Release()
		n.log.Debug("netstack: a flow of the guest fails", "err", udpErr)
		return
	}
	in := gonet.NewUDPConn(&wq, ep)
	port := r.ID().LocalPort
	go func() {
		defer n.udp.Release()
		defer in.Close()
		// Only later is it known whether anybody takes a datagram, so we use the first
		// address.
		out, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to[0], port)))
		if err != nil {
			n.log.Debug("netstack: a flow of the guest fails", "err", err)
			return
		}
		defer out.Close()
		defer n.out.add(out.LocalAddr(), func() { out.Close() })() // the next datagram starts another flow
		joinUDP(in, out)
	}()
}

// joinUDP copies datagrams between two connections until both have been idle for a while. It
// closes both.
func joinUDP(a, b net.Conn) {
	var last atomic.Int64 // Unix time of the last datagram, ns
	last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	pipe := func(to, from net.Conn) {
		defer a.Close()
		defer b.Close()
		buf := make([]byte, maxUDPPayload)
		for {
			from.SetReadDeadline(time.Unix(0, last.Load()).Add(udpIdle))
			size, err := from.Read(buf)
			switch {
			case err == nil:
				last.Store(time.Now().UnixNano())
				to.Write(buf[:size]) // datagrams may be lost
			case isRefused(err): // nobody listens there now; maybe later
			case isTimeout(err) && time.Since(time.Unix(0, last.Load())) < udpIdle: // the other direction is active
			default:
				return
			}
		}
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
}
