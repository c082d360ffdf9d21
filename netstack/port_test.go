package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/lsub/lsub/virtionet"
)

// fakeCard is a [Card] with a guest behind it. Its room is bounded, like a guest's memory for
// frames.
type fakeCard struct {
	guest  *fakeGuest
	port   *Port
	room   chan []byte // frames with headers that the guest has not seen
	again  chan struct{}
	mu     sync.Mutex
	full   bool
	sent   int // frames
	large  int // frames that will be divided into several segments
	refuse int // times that there was no room
	err    error
}

func (c *fakeCard) Send(parts ...[]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.room) == cap(c.room) {
		c.full = true
		c.refuse++
		return false
	}
	if len(parts[0]) < virtionet.HeaderLen {
		c.err = errors.New("the first part does not hold the header")
	}
	frame := slices.Concat(parts...)
	if err := checkHeader(frame, c.port.n.mtu); err != nil {
		c.err = err
	}
	if frame[virtionet.GSOType] != 0 {
		c.large++
	}
	c.sent++
	c.room <- frame // the lock is held: it does not wait
	return true
}

// take is the guest's driver: it takes frames and signals room.
func (c *fakeCard) take(ctx context.Context) {
	for {
		var frame []byte
		select {
		case <-ctx.Done():
			return
		case frame = <-c.room:
		}
		c.mu.Lock()
		tell := c.full
		c.full = false
		c.mu.Unlock()
		if tell {
			select {
			case c.again <- struct{}{}:
			default:
			}
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame[virtionet.HeaderLen:])})
		c.guest.link.InjectInbound(0, pkt)
		pkt.DecRef()
	}
}

// checkHeader checks a frame for the guest against its header.
func checkHeader(frame []byte, mtu int) error {
	le := binary.LittleEndian
	h, f := frame[:virtionet.HeaderLen], frame[virtionet.HeaderLen:]
	if header.Ethernet(f).Type() != header.IPv4ProtocolNumber {
		if [virtionet.HeaderLen]byte(h) != [virtionet.HeaderLen]byte{} {
			return fmt.Errorf("a frame without IPv4 has the header %x", h)
		}
		return nil
	}
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	if !ip.IsValid(len(ip)) || !ip.IsChecksumValid() {
		return errors.New("a packet is not valid")
	}
	if ip.TransportProtocol() != header.TCPProtocolNumber {
		return nil
	}
	tcp := header.TCP(ip.Payload())
	size := len(tcp) - int(tcp.DataOffset())
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(tcp)))
	if h[virtionet.Flags]&virtionet.NeedsCsum == 0 {
		if !tcp.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(tcp.Payload(), 0), uint16(size)) {
			return errors.New("a packet's sum is wrong, and the header does not say so")
		}
	} else if start, offset := int(le.Uint16(h[virtionet.CsumStart:])), int(le.Uint16(h[virtionet.CsumOffset:])); start != len(f)-len(tcp) || offset != header.TCPChecksumOffset {
		return fmt.Errorf("the sum is of what begins at %d, at %d", start, offset)
	} else if tcp.Checksum() != pseudo {
		return fmt.Errorf("the sum before the payload's is %x, want %x", tcp.Checksum(), pseudo)
	}
	mss, headers := int(le.Uint16(h[virtionet.GSOSize:])), int(le.Uint16(h[virtionet.HdrLen:]))
	switch {
	case h[virtionet.GSOType] == 0 && len(ip) > mtu:
		return fmt.Errorf("a packet of %d bytes is larger than the MTU", len(ip))
	case h[virtionet.GSOType] == 0 && (mss != 0 || headers != 0):
		return fmt.Errorf("a single segment has the header %x", h)
	case h[virtionet.GSOType] == 0:
	case h[virtionet.GSOType] != virtionet.GSOTCPv4 || h[virtionet.Flags] != virtionet.NeedsCsum:
		return fmt.Errorf("a large packet has the header %x", h)
	case headers != len(f)-size || mss+headers > mtu+header.EthernetMinimumSize || mss >= size:
		return fmt.Errorf("%d bytes are to be segments of %d with headers of %d", size, mss, headers)
	}
	return nil
}

// attachGuest attaches a guest's card to a new network. Its offloads are those of a VM's
// card: the guest fills in no checksum and does not divide segments.
func attachGuest(t *testing.T, cfg Config) (*Network, *fakeGuest) {
	n, g, _ := attachCard(t, cfg, 256)
	return n, g
}

func attachCard(t *testing.T, cfg Config, room int) (*Network, *fakeGuest, *fakeCard) {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := newFakeGuest(t, n, true)
	card := &fakeCard{guest: g, room: make(chan []byte, room), again: make(chan struct{}, 1)}
	card.port = n.Attach(card)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { card.take(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-card.again:
				card.port.Room()
			}
		}
	})
	wg.Go(func() {
		for {
			pkt := g.link.ReadContext(ctx)
			if pkt == nil {
				return
			}
			frame := slices.Concat(make([]byte, virtionet.HeaderLen), pkt.ToView().AsSlice())
			pkt.DecRef()
			card.port.Receive(scatter(frame))
			clear(frame) // the guest reuses its memory
			card.port.Flush()
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		g.stack.Close()
		if card.err != nil {
			t.Error(card.err)
		}
	})
	return n, g, card
}

// scatter cuts a frame into parts, some of them empty, as a guest may.
func scatter(frame []byte) [][]byte {
	var parts [][]byte
	for len(frame) > 0 && len(parts) < 20 {
		k := rand.IntN(min(len(frame), 40) + 1)
		parts = append(parts, frame[:k])
		frame = frame[k:]
	}
	return append(parts, frame)
}

// TestSmallRoom has a guest that often has no room. Nothing is lost.
func TestSmallRoom(t *testing.T) {
	for _, mtu := range []int{1500, DefaultMTU} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			n, g, card := attachCard(t, Config{MTU: mtu}, 1)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			data := make([]byte, 8<<20)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						c.Write(data)
						c.Close()
					}()
				}
			}()
			var wg sync.WaitGroup
			for range 4 {
				c, err := g.dialTCP(n.Host(), l.Addr().(*net.TCPAddr).Port)
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					defer c.Close()
					got, err := io.ReadAll(c)
					if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
						t.Errorf("%d bytes arrived: %v", len(got), err)
					}
				})
			}
			wg.Wait()
			card.port.mu.Lock()
			defer card.port.mu.Unlock()
			if card.port.lost != 0 {
				t.Errorf("%d packets were lost", card.port.lost)
			}
			card.mu.Lock()
			defer card.mu.Unlock()
			if card.refuse == 0 {
				t.Error("there was always room")
			}
			if (card.large > 0) != (mtu == 1500) {
				t.Errorf("with an MTU of %d, %d of %d frames were large", mtu, card.large, card.sent)
			}
		})
	}
}

// scriptedCard keeps all frames, as long as there is room.
type scriptedCard struct {
	room   int
	frames [][]byte
}

func (c *scriptedCard) Send(parts ...[]byte) bool {
	if len(c.frames) == c.room {
		return false
	}
	c.frames = append(c.frames, slices.Concat(parts...)[virtionet.HeaderLen:])
	return true
}

// TestQueue keeps packets in order while there is no room, and bounds the queue.
func TestQueue(t *testing.T) {
	n, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	card := &scriptedCard{}
	p := n.Attach(card)
	size := 0
	send := func(i int) {
		b := make([]byte, 1000)
		binary.BigEndian.PutUint32(b, uint32(i))
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 100, Payload: buffer.MakeWithData(b)})
		pkt.NetworkHeader().Push(20)[0] = byte(i)
		size = pkt.MemSize()
		p.deliver(pkt)
		pkt.DecRef()
	}
	next := 0
	expect := func(frames int) {
		t.Helper()
		if len(card.frames) != frames {
			t.Fatalf("%d frames, want %d", len(card.frames), frames)
		}
		for _, f := range card.frames {
			if got := binary.BigEndian.Uint32(f[20:]); len(f) != 1020 || f[0] != byte(next) || got != uint32(next) {
				t.Fatalf("frame %d of %d bytes, want %d", got, len(f), next)
			}
			next++
		}
		card.frames = nil
	}
	for i := range 10 {
		send(i)
	}
	expect(0)
	card.room = 3
	p.Room()
	expect(3)
	send(10) // it does not overtake the others, although there is room
	expect(0)
	card.room = 100
	p.Room()
	expect(8)
	send(11)
	expect(1)
	card.room = 0
	fits := queueLimit / size
	for i := range fits + 100 {
		send(12 + i)
	}
	if p.queued > queueLimit || len(p.queue) != fits || p.lost != 100 {
		t.Errorf("%d packets of %d bytes wait, want %d", len(p.queue), p.queued, fits)
	}
	card.room = fits + 1
	p.Room()
	expect(fits)
	if p.queued != 0 || len(p.queue) != 0 {
		t.Errorf("%d packets of %d bytes wait when all are sent", len(p.queue), p.queued)
	}
}

// neighbor takes frames to the address of zeros.
type neighbor struct{ took, flushed, roomed int }

func (n *neighbor) Receive(parts [][]byte) bool {
	frame := slices.Concat(parts...)
	if len(frame) < virtionet.HeaderLen+6 || !bytes.Equal(frame[virtionet.HeaderLen:virtionet.HeaderLen+6], make([]byte, 6)) {
		return false
	}
	n.took++
	return true
}

func (n *neighbor) Flush() { n.flushed++ }
func (n *neighbor) Room()  { n.roomed++ }

// TestNeighbor passes each frame to its receiver.
func TestNeighbor(t *testing.T) {
	n, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	card := &scriptedCard{room: 100}
	p := n.Attach(card)
	var other neighbor
	p.Neighbor = &other
	arp := arpRequest(n)
	p.Receive([][]byte{make([]byte, virtionet.HeaderLen), arp})
	p.Receive([][]byte{make([]byte, virtionet.HeaderLen), make([]byte, 60)})
	p.Receive([][]byte{make([]byte, 5)})
	p.Flush()
	p.Room()
	if want := (neighbor{1, 1, 1}); other != want {
		t.Errorf("the neighbor had %v, want %v", other, want)
	}
	if len(card.frames) != 1 || header.ARP(card.frames[0][14:]).Op() != header.ARPReply {
		t.Errorf("%x, want an answer of ARP", card.frames)
	}
}

// TestAttachAgain attaches another VM after one that did not come up.
func TestAttachAgain(t *testing.T) {
	n, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	n.Attach(&scriptedCard{})
	card := &scriptedCard{room: 1}
	n.Attach(card).Receive([][]byte{make([]byte, virtionet.HeaderLen), arpRequest(n)})
	if len(card.frames) != 1 || header.ARP(card.frames[0][14:]).Op() != header.ARPReply {
		t.Errorf("%x, want an answer of ARP", card.frames)
	}
}

// arpRequest is the guest's request for the gateway's address.
func arpRequest(n *Network) []byte {
	frame := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	header.Ethernet(frame).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(n.GuestMAC()), DstAddr: header.EthernetBroadcastAddress, Type: header.ARPProtocolNumber,
	})
	a := header.ARP(frame[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPRequest)
	copy(a.HardwareAddressSender(), n.GuestMAC())
	copy(a.ProtocolAddressSender(), n.Guest().Addr().AsSlice())
	copy(a.ProtocolAddressTarget(), n.Gateway().AsSlice())
	return frame
}

// TestHostileCard sends frames of all sizes, then expects an answer to a valid one.
func TestHostileCard(t *testing.T) {
	n, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	card := &scriptedCard{room: 1 << 20}
	p := n.Attach(card)
	p.Receive(nil)
	p.Receive([][]byte{nil, {}})
	frame := arpRequest(n)
	for size := range virtionet.HeaderLen + len(frame) {
		p.Receive(scatter(slices.Concat(make([]byte, virtionet.HeaderLen), frame)[:size]))
	}
	for _, size := range []int{maxCardFrame, maxCardFrame + 1, 1 << 20} {
		big := slices.Concat(make([]byte, virtionet.HeaderLen), frame, make([]byte, size-len(frame)))
		copy(big[virtionet.HeaderLen+12:], []byte{8, 0})
		p.Receive(scatter(big))
	}
	for range 20000 {
		b := make([]byte, rand.IntN(200))
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		if len(b) > virtionet.HeaderLen+14+20 { // to the gateway, with IPv4, so that more is parsed
			copy(b[virtionet.HeaderLen:], n.link.LinkAddress())
			copy(b[virtionet.HeaderLen+12:], []byte{8, 0, 0x45})
		}
		p.Receive(scatter(b))
	}
	card.frames = nil
	p.Receive(scatter(slices.Concat(make([]byte, virtionet.HeaderLen), frame)))
	if len(card.frames) != 1 || header.ARP(card.frames[0][14:]).Op() != header.ARPReply {
		t.Errorf("%x, want an answer of ARP", card.frames)
	}
}

func FuzzPort(f *testing.F) {
	n, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Concat(make([]byte, virtionet.HeaderLen), arpRequest(n)), uint16(3))
	f.Add(make([]byte, 13), uint16(13))
	p := n.Attach(&scriptedCard{})
	f.Fuzz(func(t *testing.T, frame []byte, cut uint16) {
		k := min(int(cut), len(frame))
		p.Receive([][]byte{frame[:k], frame[k:]})
		p.Room()
	})
}
