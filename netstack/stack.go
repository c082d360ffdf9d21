package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containers/gvisor-tap-vsock/pkg/tap"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// nic is the number of the stack's only card, the gateway's.
const nic = 1

// makeStack makes the gateway: a TCP/IP stack behind the switch, which takes packets for all
// addresses.
//
// It is built from gvisor-tap-vsock's parts. The library's New would dial any port of the
// gateway's own address on the host, allow only 10 connections that are being established,
// and resolve names with Go's resolver.
func (n *Network) makeStack() error {
	end, err := tap.NewLinkEndpoint(false, uint32(n.mtu), gatewayMAC, n.Gateway().String(), []string{n.Host().String()})
	if err != nil {
		return err
	}
	n.link = &link{LinkEndpoint: end, ports: tap.NewSwitch(false), takeEcho: n.takeEcho}
	n.link.Connect(wire{n.link})
	n.link.ports.Connect(n.link)

	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	n.stack = s
	if err := s.CreateNIC(nic, n.link); err != nil {
		return errors.New(err.String())
	}
	address := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address4(n.Gateway()).WithPrefix()}
	if err := s.AddProtocolAddress(nic, address, stack.AddressProperties{}); err != nil {
		return errors.New(err.String())
	}
	s.SetSpoofing(nic, true)
	s.SetPromiscuousMode(nic, true)
	subnet, err := tcpip.NewSubnet(address4(n.subnet.Addr()), tcpip.MaskFromBytes(net.CIDRMask(n.subnet.Bits(), 32)))
	if err != nil {
		return err
	}
	s.SetRouteTable([]tcpip.Route{{Destination: subnet, NIC: nic}})
	if err := n.forwardTCP(); err != nil {
		return err
	}
	n.forwardUDP()
	return n.serveDNS()
}

func address4(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

// target returns the host's addresses for an address that the guest wants to reach, in the
// order to try. The error says why there are none.
func (n *Network) target(to tcpip.Address) ([]netip.Addr, error) {
	a, ok := netip.AddrFromSlice(to.AsSlice())
	switch {
	case !ok || !a.Is4():
		return nil, errors.New("it is no IPv4 address")
	case a == n.Host() && n.cfg.NoHostAccess:
		return nil, errors.New("the profile does not let the VM reach the host's loopback")
	case a == n.Host():
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	case n.subnet.Contains(a):
		return nil, fmt.Errorf("%v is of the VM's own network", a)
	case a.IsUnspecified(), a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return nil, fmt.Errorf("%v is no address of another machine", a)
	}
	return []netip.Addr{a}, nil
}
