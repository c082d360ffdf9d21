package netstack

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/containers/gvisor-tap-vsock/pkg/tap"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/lsub/lsub/virtionet"
)

// link is the gateway's end of the wire. At the other end is the [Port] of the last attached
// card, or a switch for a card on a socket. An attached card checksums and divides segments
// itself.
type link struct {
	*tap.LinkEndpoint
	ports *tap.Switch
	port  atomic.Pointer[Port] // nil means the switch
	// takeEcho takes the guest's echo requests for other machines.
	takeEcho func(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) bool
}

// DeliverNetworkPacket takes one of the guest's packets.
func (l *link) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if !l.takeEcho(protocol, pkt) {
		l.LinkEndpoint.DeliverNetworkPacket(protocol, pkt)
	}
}

var (
	_ stack.GSOEndpoint = (*link)(nil)
	_ tap.NetworkSwitch = wire{}
)

// wire carries the gateway's frames.
type wire struct{ *link }

// DeliverNetworkPacket sends one of the gateway's frames.
func (w wire) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if p := w.port.Load(); p != nil {
		p.deliver(pkt)
	} else {
		w.ports.DeliverNetworkPacket(protocol, pkt)
	}
}

// SupportedGSO returns whether the stack may leave segments undivided.
func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.port.Load() != nil {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// GSOMaxSize is the maximum size of the stack's packets, in bytes. The stack reserves more
// room for the headers than they take.
func (l *link) GSOMaxSize() uint32 { return maxIPv4 }

// maxIPv4 is the maximum size of an IPv4 packet, in bytes.
const maxIPv4 = 65535

// fillHeader sets h to the offloads of one of the stack's packets: its TCP checksum covers
// the pseudo-header alone, and its payload may be that of several segments.
func fillHeader(h *[virtionet.HeaderLen]byte, pkt *stack.PacketBuffer) {
	*h = [virtionet.HeaderLen]byte{}
	gso := &pkt.GSOOptions
	if gso.Type != stack.GSOTCPv4 {
		return
	}
	le := binary.LittleEndian
	if gso.NeedsCsum {
		h[virtionet.Flags] = virtionet.NeedsCsum
		le.PutUint16(h[virtionet.CsumStart:], header.EthernetMinimumSize+gso.L3HdrLen)
		le.PutUint16(h[virtionet.CsumOffset:], gso.CsumOffset)
	}
	if pkt.Data().Size() > int(gso.MSS) {
		h[virtionet.GSOType] = virtionet.GSOTCPv4
		le.PutUint16(h[virtionet.HdrLen:], uint16(pkt.HeaderSize()))
		le.PutUint16(h[virtionet.GSOSize:], gso.MSS)
	}
}
