package netstack

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/lsub/lsub/virtionet"
)

// fakeGuest is a TCP/IP stack at the guest's end of the card.
type fakeGuest struct {
	stack *stack.Stack
	link  *channel.Endpoint
}

// starter connects a guest to a new network.
type starter func(t *testing.T, cfg Config) (*Network, *fakeGuest)

// bothWays runs a test twice: with the guest's card on a stream, and with an attached card.
func bothWays(t *testing.T, test func(t *testing.T, start starter)) {
	t.Run("stream", func(t *testing.T) { test(t, startGuest) })
	t.Run("card", func(t *testing.T) { test(t, attachGuest) })
}

// startGuest connects a guest to a new network.
func startGuest(t *testing.T, cfg Config) (*Network, *fakeGuest) {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	host, card := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Serve(ctx, host, virtionet.Stream); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	g := newFakeGuest(t, n, false)
	wg.Go(func() { g.send(ctx, card) })
	wg.Go(func() { g.receive(card) })
	t.Cleanup(func() {
		cancel()
		card.Close()
		wg.Wait()
		g.stack.Close()
	})
	return n, g
}

// newFakeGuest makes a guest. An attached one neither fills in nor checks checksums, and does
// not divide segments.
func newFakeGuest(t *testing.T, n *Network, attached bool) *fakeGuest {
	t.Helper()
	g := &fakeGuest{
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
		}),
		// A window of small frames fits: dropped frames are resent late.
		link: channel.New(4096, uint32(n.MTU())+14, tcpip.LinkAddress(n.GuestMAC())),
	}
	if attached {
		g.link.LinkEPCapabilities |= stack.CapabilityRXChecksumOffload
		g.link.SupportedGSOKind = stack.HostGSOSupported
	}
	check := func(err tcpip.Error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(g.stack.CreateNIC(1, ethernet.New(g.link)))
	guest := n.Guest()
	check(g.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(guest.Addr().As4()), PrefixLen: guest.Bits()},
	}, stack.AddressProperties{}))
	subnet, err := tcpip.NewSubnet(tcpip.AddrFrom4(guest.Masked().Addr().As4()), tcpip.MaskFromBytes(net.CIDRMask(guest.Bits(), 32)))
	if err != nil {
		t.Fatal(err)
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: subnet, NIC: 1},
		{Destination: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4([4]byte{}), PrefixLen: 0}.Subnet(),
			Gateway: tcpip.AddrFrom4(n.Gateway().As4()), NIC: 1},
	})
	return g
}

// send writes the guest's frames to its card.
func (g *fakeGuest) send(ctx context.Context, card net.Conn) {
	for {
		pkt := g.link.ReadContext(ctx)
		if pkt == nil {
			return
		}
		frame := pkt.ToView().AsSlice()
		b := binary.BigEndian.AppendUint32(nil, uint32(len(frame)))
		_, err := card.Write(append(b, frame...))
		pkt.DecRef()
		if err != nil {
			return
		}
	}
}

// receive hands the guest the frames that come from its card.
func (g *fakeGuest) receive(card net.Conn) {
	var size [4]byte
	for {
		if _, err := io.ReadFull(card, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(card, frame); err != nil {
			return
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
		g.link.InjectInbound(0, pkt)
		pkt.DecRef()
	}
}
