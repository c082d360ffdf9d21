package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/lsub/lsub/virtionet"
)

// Neighbor takes frames of a card that are not for the network.
type Neighbor interface {
	// Receive reports whether it has taken the frame. The parts are as in [Port.Receive].
	Receive(parts [][]byte) bool
	// Flush and Room are as in [Port].
	Flush()
	Room()
}

// queueLimit bounds the packets that wait for a guest without room, in bytes. The rest is
// lost, as on any wire.
const queueLimit = 8 << 20

// Port is the network's end of a [virtionet.Card]. Receive and Flush are for one goroutine.
// They and Room may call [virtionet.Card.Send], so the card must not hold a lock that its
// Send takes.
type Port struct {
	// Neighbor is asked first about each frame; may be nil. It is set before the guest runs.
	Neighbor Neighbor

	n       *Network
	card    virtionet.Card
	gateway tcpip.LinkAddress
	ours    bool // drained first in the last Room; belongs to the goroutine that calls Room

	mu     sync.Mutex // keeps frames in order; taken before the card's locks
	head   [virtionet.HeaderLen]byte
	parts  [][]byte // of the current frame
	queue  []*stack.PacketBuffer
	queued int // bytes
	lost   int // packets dropped because the queue was full
}

// Attach connects the guest's card to the network. It replaces [Network.Serve], and is called
// once for each VM, before its guest runs. Another VM may follow one that does not come up.
func (n *Network) Attach(card virtionet.Card) *Port {
	p := &Port{n: n, card: card, gateway: n.link.LinkAddress()}
	n.link.port.Store(p)
	return p
}

// maxCardFrame is the longest frame from a card, in bytes: its undivided segments have up to
// IPv4's maximum, whatever the MTU is.
const maxCardFrame = header.EthernetMinimumSize + maxIPv4

// Receive takes a frame from the guest with its header. The parts are the guest's memory,
// which may change at any time, so each byte is read once. The header's checksum and segment
// fields are ignored, because no packet is passed on.
func (p *Port) Receive(parts [][]byte) {
	if p.Neighbor != nil && p.Neighbor.Receive(parts) {
		return
	}
	size := -virtionet.HeaderLen
	for _, part := range parts {
		size += len(part)
	}
	if size < minFrame || size > maxCardFrame {
		p.n.log.Debug("netstack: the guest sent a frame of a wrong size", "bytes", size)
		return
	}
	var head [virtionet.HeaderLen + header.EthernetMinimumSize]byte
	parts, offset := copyHead(head[:], parts)
	eth := header.Ethernet(head[virtionet.HeaderLen:])
	if to := eth.DestinationAddress(); to != p.gateway && to != header.EthernetBroadcastAddress {
		return // IPv6 neighbor discovery: there are no neighbors
	}
	payload := buffer.NewView(size - header.EthernetMinimumSize)
	for _, part := range parts {
		payload.Write(part[offset:])
		offset = 0
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(payload)})
	p.n.link.DeliverNetworkPacket(eth.Type(), pkt)
	pkt.DecRef()
}

// copyHead fills head with the beginning of parts, which must be long enough. It returns the
// remaining parts, and the offset in the first one.
func copyHead(head []byte, parts [][]byte) (rest [][]byte, offset int) {
	for len(head) > 0 {
		offset = copy(head, parts[0])
		head = head[offset:]
		if len(head) > 0 {
			parts = parts[1:]
		}
	}
	return parts, offset
}

// Flush signals that there are no more frames for now.
func (p *Port) Flush() {
	if p.Neighbor != nil {
		p.Neighbor.Flush()
	}
}

// deliver sends a frame to the guest, or queues it until there is room.
func (p *Port) deliver(pkt *stack.PacketBuffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 && p.send(pkt) {
		return
	}
	if p.queued+pkt.MemSize() > queueLimit {
		if p.lost++; p.lost&(p.lost-1) == 0 { // few log lines, whatever happens
			p.n.log.Debug("netstack: the guest takes too few frames; some are lost", "lost", p.lost)
		}
		return
	}
	p.queued += pkt.MemSize()
	p.queue = append(p.queue, pkt.IncRef())
}

// Room is called when the guest has room again after [virtionet.Card.Send] has refused a
// frame.
func (p *Port) Room() {
	// We and the neighbor take turns to use the room first.
	if p.ours = !p.ours; p.ours {
		p.drain()
	}
	if p.Neighbor != nil {
		p.Neighbor.Room()
	}
	if !p.ours {
		p.drain()
	}
}

// drain sends queued packets while there is room.
func (p *Port) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 && p.send(p.queue[0]) {
		p.queued -= p.queue[0].MemSize()
		p.queue[0].DecRef()
		p.queue[0] = nil
		p.queue = p.queue[1:]
	}
}

// send sends a packet's bytes in place. The caller holds p.mu.
func (p *Port) send(pkt *stack.PacketBuffer) bool {
	fillHeader(&p.head, pkt)
	p.parts = append(p.parts[:0], p.head[:])
	views, offset := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip := min(offset, len(b)); skip > 0 {
			offset -= skip
			b = b[skip:]
		}
		if len(b) > 0 {
			p.parts = append(p.parts, b)
		}
	}
	ok := p.card.Send(p.parts...)
	clear(p.parts)
	return ok
}
