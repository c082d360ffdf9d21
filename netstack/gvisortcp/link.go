// Package gvisortcp connects to servers on the guest's loopback with gVisor's TCP, over
// the same frames as package loopback. It exists to be measured beside it (ADR 22).
package gvisortcp

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Card is the host's end of the guest's network card.
type Card interface{ Send(parts ...[]byte) bool }

// Config says how a [Link] is tuned. Zero of each is its default.
type Config struct {
	Card                Card
	FirstPort, LastPort uint16 // of the host's ends
	Buffer              int    // bytes, each way; default 4 MiB
	MSS                 int    // that the guest is asked for; default 32 KiB less 256
	Cubic, Delay        bool   // congestion control; delayed acknowledgements
	NoRACK, NoSACK      bool
}

const (
	nic     = 1
	vnetLen = 12
	ethLen  = header.EthernetMinimumSize
	ipAt    = vnetLen + ethLen
	// maxFrame is the longest frame that Linux sends, with its headers.
	maxFrame = 128 << 10
	// queueLimit bounds the bytes that wait for a guest without room. More is lost.
	queueLimit = 8 << 20
)

// The stack does not route packets between loopback addresses over a card, so it works
// with these. The link translates them.
var (
	host4  = tcpip.AddrFrom4([4]byte{192, 0, 2, 2})
	guest4 = tcpip.AddrFrom4([4]byte{192, 0, 2, 1})
	host6  = tcpip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: 2})
	guest6 = tcpip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: 1})

	loop6 = netip.IPv6Loopback().As16()
)

// Link is a TCP stack at the host's end of a card.
type Link struct {
	cfg   Config
	stack *stack.Stack
	disp  stack.NetworkDispatcher

	mu     sync.Mutex
	head   [ipAt]byte
	parts  [][]byte
	queue  []*stack.PacketBuffer
	queued int
	lost   int
}

var (
	_ stack.LinkEndpoint = (*Link)(nil)
	_ stack.GSOEndpoint  = (*Link)(nil)
)

// New returns a link without connections.
func New(cfg Config) (*Link, error) {
	if cfg.Buffer == 0 {
		cfg.Buffer = 4 << 20
	}
	if cfg.MSS == 0 {
		cfg.MSS = 32<<10 - 256
	}
	l := &Link{cfg: cfg}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	l.stack = s
	rack, sack := tcpip.TCPRACKLossDetection, tcpip.TCPSACKEnabled(!cfg.NoSACK)
	if cfg.NoRACK {
		rack = 0
	}
	control := tcpip.CongestionControlOption("reno")
	if cfg.Cubic {
		control = "cubic"
	}
	delay, moderate, wait := tcpip.TCPDelayEnabled(false), tcpip.TCPModerateReceiveBufferOption(false), tcpip.TCPTimeWaitTimeoutOption(100*time.Millisecond)
	var failed tcpip.Error
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: cfg.Buffer, Max: cfg.Buffer},
		&tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: cfg.Buffer, Max: cfg.Buffer},
		&rack, &sack, &control, &delay, &moderate, &wait,
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			failed = err
		}
	}
	for _, err := range []tcpip.Error{
		failed,
		s.CreateNIC(nic, l),
		s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: host4.WithPrefix()}, stack.AddressProperties{}),
		s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv6.ProtocolNumber, AddressWithPrefix: host6.WithPrefix()}, stack.AddressProperties{}),
		s.SetPortRange(cfg.FirstPort, cfg.LastPort),
	} {
		if err != nil {
			return nil, errors.New(err.String())
		}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})
	return l, nil
}

// Shutdown ends all connections.
func (l *Link) Shutdown() { l.stack.Close() }

// Conn is a connection to the guest's loopback.
type Conn struct {
	*gonet.TCPConn
	to       netip.AddrPort
	ep       tcpip.Endpoint
	wq       *waiter.Queue
	entry    waiter.Entry
	writable chan struct{}
}

// Start begins to connect; [Conn.Opened] waits for the answer.
func (l *Link) Start(to netip.AddrPort) (*Conn, error) {
	proto, remote := ipv4.ProtocolNumber, guest4
	if to.Addr().Is6() {
		proto, remote = ipv6.ProtocolNumber, guest6
	}
	wq := &waiter.Queue{}
	ep, err := l.stack.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if err != nil {
		return nil, errors.New(err.String())
	}
	if err := ep.SetSockOptInt(tcpip.MaxSegOption, l.cfg.MSS); err != nil {
		return nil, errors.New(err.String())
	}
	ep.SocketOptions().SetDelayOption(false)
	ep.SocketOptions().SetQuickAck(!l.cfg.Delay)
	c := &Conn{to: to, ep: ep, wq: wq}
	c.entry, c.writable = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&c.entry)
	err = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: remote, Port: to.Port()})
	if _, ok := err.(*tcpip.ErrConnectStarted); !ok && err != nil {
		wq.EventUnregister(&c.entry)
		ep.Close()
		return nil, errors.New(err.String())
	}
	c.TCPConn = gonet.NewTCPConn(wq, ep)
	return c, nil
}

// Opened waits until the guest has agreed.
func (c *Conn) Opened(ctx context.Context) error {
	defer c.wq.EventUnregister(&c.entry)
	select {
	case <-c.writable:
	case <-ctx.Done():
		c.ep.Abort()
		return ctx.Err()
	}
	switch err := c.ep.LastError().(type) {
	case nil:
		return nil
	case *tcpip.ErrConnectionRefused:
		c.ep.Close()
		return syscall.ECONNREFUSED
	default:
		c.ep.Close()
		return errors.New(err.String())
	}
}

// Mine tells whether a frame is for this link, by its port.
func (l *Link) mine(head []byte) bool {
	at := ipAt + header.IPv4MinimumSize
	if binary.BigEndian.Uint16(head[ipAt-2:]) == uint16(ipv6.ProtocolNumber) {
		at = ipAt + header.IPv6MinimumSize
	}
	port := binary.BigEndian.Uint16(head[at+2:])
	return port >= l.cfg.FirstPort && port <= l.cfg.LastPort
}

// Receive takes a frame of the guest's loopback.
func (l *Link) Receive(parts [][]byte) bool {
	var b [ipAt + header.IPv6MinimumSize + header.TCPMinimumSize]byte
	size, n := -ipAt, 0
	for _, p := range parts {
		size += len(p)
		n += copy(b[n:], p)
	}
	if n < ipAt+header.IPv4MinimumSize+header.TCPMinimumSize || size > maxFrame || [6]byte(b[vnetLen:]) != [6]byte{} || !l.mine(b[:]) {
		return false
	}
	payload := buffer.NewView(size)
	skip := ipAt
	for _, p := range parts {
		k := min(skip, len(p))
		skip -= k
		payload.Write(p[k:])
	}
	ip := payload.AsSlice()
	proto := ipv4.ProtocolNumber
	switch binary.BigEndian.Uint16(b[ipAt-2:]) {
	case uint16(ipv4.ProtocolNumber):
		h := header.IPv4(ip)
		if ip[0] != 0x45 || [4]byte(ip[12:]) != [4]byte{127, 0, 0, 1} || [4]byte(ip[16:]) != [4]byte{127, 0, 0, 1} {
			payload.Release()
			return true
		}
		h.SetSourceAddress(guest4)
		h.SetDestinationAddress(host4)
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
	case uint16(ipv6.ProtocolNumber):
		if len(ip) < header.IPv6MinimumSize || [16]byte(ip[8:]) != loop6 || [16]byte(ip[24:]) != loop6 {
			payload.Release()
			return true
		}
		h := header.IPv6(ip)
		h.SetSourceAddress(guest6)
		h.SetDestinationAddress(host6)
		proto = ipv6.ProtocolNumber
	default:
		payload.Release()
		return true
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(payload)})
	pkt.RXChecksumValidated = true
	l.disp.DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
	return true
}

// Flush does nothing: the stack answers by itself.
func (l *Link) Flush() {}

// Room sends what waits.
func (l *Link) Room() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 && l.send(l.queue[0]) {
		l.queued -= l.queue[0].Size()
		l.queue[0].DecRef()
		l.queue[0] = nil
		l.queue = l.queue[1:]
	}
}

// WritePackets implements [stack.LinkWriter].
func (l *Link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pkt := range pkts.AsSlice() {
		translate(pkt)
		if len(l.queue) == 0 && l.send(pkt) {
			continue
		}
		if l.queued+pkt.Size() > queueLimit {
			l.lost++
			continue
		}
		l.queued += pkt.Size()
		l.queue = append(l.queue, pkt.IncRef())
	}
	return pkts.Len(), nil
}

// translate puts in the loopback addresses, and the sum of the pseudo-header.
func translate(pkt *stack.PacketBuffer) {
	ip, t := pkt.NetworkHeader().Slice(), pkt.TransportHeader().Slice()
	sum := uint32(header.TCPProtocolNumber) + uint32(len(t)+pkt.Data().Size())
	if ip[0]>>4 == 4 {
		h := header.IPv4(ip)
		copy(ip[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
		sum += 2 * (127<<8 + 1)
	} else {
		copy(ip[8:], loop6[:])
		copy(ip[24:], loop6[:])
		sum += 2
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	header.TCP(t).SetChecksum(uint16(sum))
}

// send gives the guest a frame. l.mu is held.
func (l *Link) send(pkt *stack.PacketBuffer) bool {
	h := l.head[:]
	clear(h)
	ip := pkt.NetworkHeader().Slice()
	h[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.LittleEndian.PutUint16(h[6:], uint16(ethLen+len(ip)))
	binary.LittleEndian.PutUint16(h[8:], header.TCPChecksumOffset)
	binary.BigEndian.PutUint16(h[ipAt-2:], uint16(pkt.NetworkProtocolNumber))
	l.parts = append(l.parts[:0], h)
	views, offset := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip := min(offset, len(b)); skip > 0 {
			offset -= skip
			b = b[skip:]
		}
		if len(b) > 0 {
			l.parts = append(l.parts, b)
		}
	}
	ok := l.cfg.Card.Send(l.parts...)
	clear(l.parts)
	return ok
}

// What follows implements [stack.LinkEndpoint] and [stack.GSOEndpoint].

func (l *Link) MTU() uint32                             { return 65535 }
func (l *Link) SetMTU(uint32)                           {}
func (l *Link) MaxHeaderLength() uint16                 { return 0 }
func (l *Link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *Link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *Link) Attach(d stack.NetworkDispatcher)        { l.disp = d }
func (l *Link) IsAttached() bool                        { return l.disp != nil }
func (l *Link) Close()                                  {}
func (l *Link) Wait()                                   {}
func (l *Link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *Link) AddHeader(*stack.PacketBuffer)           {}
func (l *Link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *Link) SetOnCloseAction(func())                 {}
func (l *Link) GSOMaxSize() uint32                      { return 65535 }
func (l *Link) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }
func (l *Link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityTXChecksumOffload | stack.CapabilityRXChecksumOffload
}
