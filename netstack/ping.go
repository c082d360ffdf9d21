package netstack

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	maxPings = 64 // at a time
	// pingTimeout is how long another machine may take to answer.
	pingTimeout = 5 * time.Second
)

// takeEcho takes an echo request of the guest that is for another machine, and reports
// whether it has. The stack would answer it as if it were that machine.
func (n *Network) takeEcho(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) bool {
	if protocol != header.IPv4ProtocolNumber {
		return false
	}
	head, ok := pkt.Data().PullUp(header.IPv4MinimumSize)
	if !ok || header.IPv4(head).TransportProtocol() != header.ICMPv4ProtocolNumber {
		return false
	}
	b := pkt.Data().AsRange().ToSlice()
	ip := header.IPv4(b)
	if !ip.IsValid(len(b)) || ip.FragmentOffset() != 0 || ip.More() || len(ip.Payload()) < header.ICMPv4MinimumSize {
		return false
	}
	echo := header.ICMPv4(ip.Payload())
	to := netip.AddrFrom4(ip.DestinationAddress().As4())
	if echo.Type() != header.ICMPv4Echo || to == n.Gateway() || to == n.Host() {
		return false
	}
	if _, err := n.target(ip.DestinationAddress()); err != nil || !n.pings.TryAcquire() {
		return true // nobody answers
	}
	go func() {
		defer n.pings.Release()
		if err := n.ping(to, echo.Sequence(), echo.Payload()); err != nil {
			n.log.Debug("netstack: no answer to a ping of the guest", "to", to, "err", err)
			return
		}
		n.answerEcho(ip, echo)
	}()
	return true
}

// answerEcho sends the guest the answer to an echo request.
func (n *Network) answerEcho(request header.IPv4, echo header.ICMPv4) {
	b := make([]byte, header.IPv4MinimumSize+len(echo))
	answer := header.ICMPv4(b[header.IPv4MinimumSize:])
	copy(answer, echo)
	answer.SetType(header.ICMPv4EchoReply)
	answer.SetChecksum(0)
	answer.SetChecksum(^checksum.Checksum(answer, 0))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: request.DestinationAddress(), DstAddr: request.SourceAddress(),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	n.stack.WritePacketToRemote(nic, tcpip.LinkAddress(n.GuestMAC()), header.IPv4ProtocolNumber, buffer.MakeWithData(b))
}

// pingFromHost sends an echo request from the host, and waits for the answer. It uses a
// socket that needs no rights, where the host lets its users have one (on Linux, the setting
// net.ipv4.ping_group_range).
func pingFromHost(to netip.Addr, sequence uint16, data []byte) error {
	c, err := icmp.ListenPacket("udp4", "0.0.0.0")
	if err != nil {
		return err
	}
	defer c.Close()
	request, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: int(sequence), Data: data}}).Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(request, &net.UDPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(pingTimeout))
	b := make([]byte, maxIPv4)
	for {
		size, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		a, ok := from.(*net.UDPAddr)
		if !ok || a.AddrPort().Addr().Unmap() != to || size < header.ICMPv4MinimumSize {
			continue
		}
		// The kernel gives this socket the answers to its own requests alone.
		switch {
		case b[0] == byte(header.ICMPv4EchoReply) && binary.BigEndian.Uint16(b[6:]) == sequence:
			return nil
		case b[0] != byte(header.ICMPv4EchoReply):
			return errors.New("the network says that it cannot be reached")
		}
	}
}
