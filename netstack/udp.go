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
	if err != nil {
		return
	}
	var wq waiter.Queue
	ep, udpErr := r.CreateEndpoint(&wq)
	if udpErr != nil {
		n.log.Debug("netstack: a flow of the guest fails", "err", udpErr)
		return
	}
	in := gonet.NewUDPConn(&wq, ep)
	port := r.ID().LocalPort
	fl := n.flows.add(func() { in.Close() })
	go func() {
		defer n.flows.remove(fl)
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
		joinUDP(in, out, &fl.last)
	}()
}

// flow is a UDP flow that is open.
type flow struct {
	last atomic.Int64 // Unix time of the last datagram, ns
	end  func()
}

// flows are the UDP flows that are open. A new one takes the place of the one that has been
// silent for longest, once there are max.
type flows struct {
	max  int
	full func() // is told when one takes another's place

	mu  sync.Mutex
	all map[*flow]struct{}
}

func newFlows(max int, full func()) *flows {
	return &flows{max: max, full: full, all: map[*flow]struct{}{}}
}

// add adds a flow that end ends. The caller removes it.
func (f *flows) add(end func()) *flow {
	fl := &flow{end: end}
	fl.last.Store(time.Now().UnixNano())
	f.mu.Lock()
	var oldest *flow
	if len(f.all) >= f.max {
		for other := range f.all {
			if oldest == nil || other.last.Load() < oldest.last.Load() {
				oldest = other
			}
		}
		delete(f.all, oldest)
	}
	f.all[fl] = struct{}{}
	f.mu.Unlock()
	if oldest != nil {
		oldest.end()
		f.full()
	}
	return fl
}

func (f *flows) remove(fl *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, fl)
}

// joinUDP copies datagrams between two connections until both have been idle for a while. It
// closes both. last is the Unix time of the last datagram in ns.
func joinUDP(a, b net.Conn, last *atomic.Int64) {
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
