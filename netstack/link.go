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

// link is the gateway's end of the wire, and what is at the other end: the [Port] of
// the card that was attached last, or a switch, to which a card is connected by a socket. A card that
// is attached sums segments up itself, and divides them.
type link struct {
	*tap.LinkEndpoint
	ports *tap.Switch
	port  atomic.Pointer[Port] // nil for the switch
}

var (
	_ stack.GSOEndpoint = (*link)(nil)
	_ tap.NetworkSwitch = wire{}
)

// wire is what the gateway's frames go through.
type wire struct{ *link }

// DeliverNetworkPacket sends a frame of the gateway's.
func (w wire) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if p := w.port.Load(); p != nil {
		p.deliver(pkt)
	} else {
		w.ports.DeliverNetworkPacket(protocol, pkt)
	}
}

// SupportedGSO tells whether the stack may leave segments as they are.
func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.port.Load() != nil {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// GSOMaxSize is the most that a packet of the stack's may have, in bytes. The stack
// leaves more room for the headers than they take.
func (l *link) GSOMaxSize() uint32 { return maxIPv4 }

// maxIPv4 is the size of the largest packet that IPv4 has, in bytes.
const maxIPv4 = 65535

// fillHeader says in h what is left to do about a packet of the stack's: the sum of
// its TCP header is that of the pseudo-header alone, and its payload may be that of
// several segments.
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
