package kvm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

// wire is the host's end of a card: it answers ARP requests and keeps all other frames.
type wire struct {
	t    *testing.T
	card virtionet.Card
	mac  net.HardwareAddr
	addr netip.Addr

	frames chan []byte
	room   chan struct{}
}

func newWire(t *testing.T) *wire {
	return &wire{
		t: t, mac: net.HardwareAddr{2, 0, 0, 0, 0, 1}, addr: netip.MustParseAddr("10.1.2.1"),
		frames: make(chan []byte, 64), room: make(chan struct{}, 1),
	}
}

func (w *wire) attach(c virtionet.Card) virtionet.Receiver { w.card = c; return w }

// Receive keeps a copy of an IPv4 frame, with its header.
func (w *wire) Receive(parts [][]byte) {
	f := bytes.Join(parts, nil)
	const eth = virtionet.HeaderLen
	switch {
	case len(f) >= eth+42 && bytes.Equal(f[eth+12:eth+22], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}): // ARP request
		if target, _ := netip.AddrFromSlice(f[eth+38 : eth+42]); target == w.addr {
			answer := make([]byte, eth+42)
			copy(answer[eth:], f[eth+6:eth+12])
			copy(answer[eth+6:], w.mac)
			copy(answer[eth+12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2})
			copy(answer[eth+22:], w.mac)
			copy(answer[eth+28:], w.addr.AsSlice())
			copy(answer[eth+32:], f[eth+22:eth+32])
			w.card.Send(answer)
		}
	case len(f) >= eth+34 && f[eth+12] == 8 && f[eth+13] == 0:
		select {
		case w.frames <- f:
		default:
			w.t.Error("the guest sends more than was expected")
		}
	}
}

// Flush has nothing to do.
func (w *wire) Flush() {}

// Room signals that there is room.
func (w *wire) Room() {
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// sum adds b to an Internet checksum.
func sum(n uint32, b []byte) uint32 {
	for i, c := range b {
		n += uint32(c) << (8 * (^i & 1))
	}
	return n
}

func fold(n uint32) uint16 {
	for n>>16 != 0 {
		n = n&0xffff + n>>16
	}
	return uint16(n)
}

// udp builds a frame whose header leaves the checksum to the guest. So the checksum field
// holds the sum of the pseudo header alone.
func (w *wire) udp(to net.HardwareAddr, dst netip.Addr, port uint16, payload []byte) []byte {
	be := binary.BigEndian
	f := make([]byte, virtionet.HeaderLen+42, virtionet.HeaderLen+42+len(payload))
	f[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.LittleEndian.PutUint16(f[6:], 34)
	binary.LittleEndian.PutUint16(f[8:], 6)
	eth := f[virtionet.HeaderLen:]
	copy(eth, to)
	copy(eth[6:], w.mac)
	eth[12] = 8
	ip := eth[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	be.PutUint16(ip[2:], uint16(28+len(payload)))
	copy(ip[12:], w.addr.AsSlice())
	copy(ip[16:], dst.AsSlice())
	be.PutUint16(ip[10:], ^fold(sum(0, ip[:20])))
	u := ip[20:]
	be.PutUint16(u, 5000)
	be.PutUint16(u[2:], port)
	be.PutUint16(u[4:], uint16(8+len(payload)))
	be.PutUint16(u[6:], fold(sum(uint32(17+8+len(payload)), ip[12:20])))
	return append(f, payload...)
}

// payload returns the payload of the UDP packet of a frame. It checks that the checksum is
// right or left to the host.
func (w *wire) payload(f []byte) []byte {
	w.t.Helper()
	be := binary.BigEndian
	ip := f[virtionet.HeaderLen+14:]
	ip = ip[:be.Uint16(ip[2:])]
	want := uint16(0xffff) // sum of everything, with the checksum itself
	if f[0]&1 != 0 {
		start, at := binary.LittleEndian.Uint16(f[6:]), binary.LittleEndian.Uint16(f[8:])
		if start != 34 || at != 6 {
			w.t.Errorf("a checksum of what begins at %d is wanted at %d", start, at)
		}
		if got, want := be.Uint16(ip[26:]), fold(sum(uint32(17+len(ip)-20), ip[12:20])); got != want {
			w.t.Errorf("the pseudo header's checksum is %#x, want %#x", got, want)
		}
	} else if got := fold(sum(sum(uint32(17+len(ip)-20), ip[12:20]), ip[20:])); got != want {
		w.t.Errorf("the checksum is wrong (%#x)", got)
	}
	return ip[28:]
}

// send sends a frame, and waits while there is no room.
func (w *wire) send(parts ...[]byte) {
	for !w.card.Send(parts...) {
		select {
		case <-w.room:
		case <-time.After(time.Minute):
			w.t.Fatal("no room")
		}
	}
}

// notServed fails the test when it is called.
func notServed(t *testing.T) func(context.Context, net.Conn, virtionet.Framing) error {
	return func(context.Context, net.Conn, virtionet.Framing) error {
		t.Error("a socket was served beside the card")
		return nil
	}
}

// TestCard exchanges frames with a guest in its memory: small ones and large ones.
func TestCard(t *testing.T) {
	noLeak(t)
	cfg := config(t)
	w := newWire(t)
	guest := net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	addr := netip.MustParseAddr("10.1.2.3")
	cfg.NIC = &hypervisor.NIC{MAC: guest, MTU: 65520, Attach: w.attach, Serve: notServed(t)}
	h := harness()
	v, _ := h.Boot(t, cfg)
	if sockets, err := os.ReadDir(cfg.Dir); err != nil || strings.Contains(fmt.Sprint(sockets), ".sock") {
		t.Errorf("sockets are left: %v, %v", sockets, err)
	}
	w.card.Send(w.udp(guest, addr, 7, []byte("the card is not up"))) // dropped: or there is no room
	if got, want := h.Control(t, v, "nic"), guest.String()+" 65520"; got != want {
		t.Errorf("network card: %s, want %s", got, want)
	}
	h.Control(t, v, "up "+addr.String())
	h.Control(t, v, "udpecho 7")
	echo := func(size int) {
		t.Helper()
		out := bytes.Repeat([]byte("frame "), size/6+1)[:size]
		f := w.udp(guest, addr, 7, out)
		w.send(f[:virtionet.HeaderLen+14], f[virtionet.HeaderLen+14:])
		select {
		case in := <-w.frames:
			if !bytes.Equal(w.payload(in), out) {
				t.Errorf("the echo of %d bytes came back changed", size)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no echo of %d bytes", size)
		}
	}
	for _, size := range []int{1, 100, 1400, 5000, 60_000, 65_400} {
		echo(size)
	}
	for _, command := range []string{"stop", "cont"} {
		if err := v.(*vm).mon.run(t.Context(), command, nil); err != nil {
			t.Fatal(err)
		}
	}
	echo(60_000)
	start := time.Now()
	const many = 2000
	for range many {
		echo(60_000)
	}
	t.Logf("%d frames of 60,000 bytes there and back: %.0f MB/s", many, many*60e3*2/1e6/time.Since(start).Seconds())
}
