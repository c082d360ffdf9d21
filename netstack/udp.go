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
	maxUDP = 2048 // flows of the guest at a time
	// udpIdle is how long a flow without a datagram is kept.
	udpIdle       = 90 * time.Second
	maxUDPPayload = 65507 // bytes
)

// forwardUDP has the guest's datagrams go where they want to, and brings the
// answers. A flow is what has the same addresses and ports on both sides.
func (n *Network) forwardUDP() {
	f := udp.NewForwarder(n.stack, n.acceptUDP)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		if _, err := n.target(id.LocalAddress); err != nil {
			return false // which tells the guest so
		}
		return f.HandlePacket(id, pkt)
	})
}

// acceptUDP takes the first datagram of a flow; what follows comes to the
// endpoint that it makes.
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
		// A datagram finds out only later whether somebody takes it, so the
		// first address it is.
		out, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to[0], port)))
		if err != nil {
			n.log.Debug("netstack: a flow of the guest fails", "err", err)
			return
		}
		defer out.Close()
		defer n.out.add(out.LocalAddr(), func() { out.Close() })() // the next datagram begins another flow
		joinUDP(in, out)
	}()
}

// joinUDP copies datagrams between two connections until neither has had one
// for a while. It closes both.
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
				to.Write(buf[:size]) // what is lost is lost, as datagrams are
			case isRefused(err): // nobody listens there now; maybe later
			case isTimeout(err) && time.Since(time.Unix(0, last.Load())) < udpIdle: // the other direction lives
			default:
				return
			}
		}
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
}
