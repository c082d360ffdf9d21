package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/lsub/lsub/virtionet"
)

// Neighbor takes those frames of a card that are not for the network.
type Neighbor interface {
	// Receive reports whether it has taken the frame. The parts are as in [Port.Receive].
	Receive(parts [][]byte) bool
	// Flush and Room are as in [Port].
	Flush()
	Room()
}

// queueLimit bounds what waits for a guest that has no room, in bytes. What is more
// is lost, as on any wire.
const queueLimit = 8 << 20

// Port is where a [virtionet.Card] is attached. Receive and Flush are for one goroutine; what
// they lead to may call [virtionet.Card.Send], and so may Room: the card holds no lock
// meanwhile that its Send takes.
type Port struct {
	// Neighbor is asked first about each frame; nil for none. It is set before the
	// guest runs.
	Neighbor Neighbor

	n       *Network
	card    virtionet.Card
	gateway tcpip.LinkAddress
	ours    bool // had room first, the last time; of the goroutine that calls Room

	mu     sync.Mutex // keeps frames in order; taken before the card's locks
	head   [virtionet.HeaderLen]byte
	parts  [][]byte // of the frame that is being sent
	queue  []*stack.PacketBuffer
	queued int // bytes
	lost   int // packets that had no room in the queue
}

// Attach connects the guest's card to the network. It takes the place of
// [Network.Serve], and is called once for each VM, before its guest runs: a VM that
// does not come up may be followed by another.
func (n *Network) Attach(card virtionet.Card) *Port {
	p := &Port{n: n, card: card, gateway: n.link.LinkAddress()}
	n.link.port.Store(p)
	return p
}

// maxCardFrame is the longest frame that a card may bring, in bytes: segments that
// it leaves undivided have up to the most that IPv4 allows, whatever the MTU is.
const maxCardFrame = header.EthernetMinimumSize + maxIPv4

// Receive takes a frame of the guest's with its header. The parts are the guest's
// memory, which may change at any time: each byte is read once. What the header says
// of sums and segments is no matter here, where nothing is passed on as a packet.
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
		return // IPv6 looks for neighbors, which there are none
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

// copyHead fills head with the beginning of parts, which are as long at least. It
// returns the parts that hold what follows, and where that begins in the first.
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

// Flush tells that there are no more frames for now.
func (p *Port) Flush() {
	if p.Neighbor != nil {
		p.Neighbor.Flush()
	}
}

// deliver sends a frame to the guest, once it has room.
func (p *Port) deliver(pkt *stack.PacketBuffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 && p.send(pkt) {
		return
	}
	if p.queued+pkt.MemSize() > queueLimit {
		if p.lost++; p.lost&(p.lost-1) == 0 { // few lines, whatever happens
			p.n.log.Debug("netstack: the guest takes too few frames; some are lost", "lost", p.lost)
		}
		return
	}
	p.queued += pkt.MemSize()
	p.queue = append(p.queue, pkt.IncRef())
}

// Room is called when the guest has room again, after [virtionet.Card.Send] has said that it
// has none.
func (p *Port) Room() {
	// Now one of the two is the first to have it, now the other.
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

// drain sends what waits, for as long as there is room.
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

// send sends a packet's bytes from where they are. p.mu is held.
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
