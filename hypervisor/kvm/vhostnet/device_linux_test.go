package vhostnet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
	"github.com/lsub/lsub/virtionet"
)

// reap takes the next frame out of the guest's buffers, which are at the offsets at, and
// offers them again.
func (g *guest) reap(at map[uint16][]int, sizes []int) []byte {
	g.t.Helper()
	var f []byte
	for chains := 1; chains > 0; chains-- {
		id, n, ok := g.rx.Reap()
		if !ok {
			g.t.Fatalf("%d buffers are missing", chains)
		}
		first := len(f) == 0
		for i, off := range at[id] {
			k := min(n, sizes[i])
			f = append(f, g.vm.Mem[off:off+k]...)
			n -= k
		}
		g.rx.Offer(id)
		if n != 0 {
			g.t.Fatalf("%d bytes more are used than there are", n)
		}
		if first {
			chains = int(f[virtionet.NumBuffers]) | int(f[virtionet.NumBuffers+1])<<8
		}
	}
	return f
}

// TestSend spreads frames over buffers of various layouts.
func TestSend(t *testing.T) {
	for name, c := range map[string]struct {
		features uint64
		sizes    []int // of each buffer's parts
	}{
		"as Linux does":       {allFeatures, []int{1536}},
		"without event index": {allFeatures &^ vhostuser.FeatureEventIdx, []int{1536}},
		"a header in parts":   {allFeatures, []int{11, 1, 700}},
		"a header of bytes":   {allFeatures, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2000}},
		"no merged buffers":   {allFeatures &^ featMrgRxbuf, []int{12, 66000}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, c.features)
			at := map[uint16][]int{}
			for id := 0; id+len(c.sizes) <= g.rx.Num; id += len(c.sizes) {
				at[uint16(id)], _ = g.offer(g.rx, id, c.sizes...)
			}
			whole := 0
			for _, n := range c.sizes {
				whole += n
			}
			for _, size := range []int{0, 60, 1514, whole - virtionet.HeaderLen, whole - virtionet.HeaderLen + 1} {
				if c.features&featMrgRxbuf == 0 && virtionet.HeaderLen+size > whole {
					continue
				}
				f := frame(size)
				cut := min(len(f), virtionet.HeaderLen+14)
				if !g.d.Send(f[:virtionet.HeaderLen], f[virtionet.HeaderLen:cut], nil, f[cut:]) {
					t.Fatalf("no room for %d bytes", size)
				}
				got := g.reap(at, c.sizes)
				chains := max(1, (len(f)+whole-1)/whole)
				copy(f[virtionet.NumBuffers:], []byte{byte(chains), 0})
				if !bytes.Equal(got, f) {
					t.Fatalf("a frame of %d bytes came as one of %d, or changed:\n%.60x\n%.60x", len(f), len(got), f, got)
				}
				if _, _, ok := g.rx.Reap(); ok {
					t.Fatal("a buffer too many was taken")
				}
			}
		})
	}
}

// TestSendLarge sends the largest frames.
func TestSendLarge(t *testing.T) {
	g := newGuest(t, allFeatures)
	at := map[uint16][]int{}
	for id := range g.rx.Num {
		at[uint16(id)], _ = g.offer(g.rx, id, 2048)
	}
	f := frame(maxFrame - virtionet.HeaderLen)
	if !g.d.Send(f) {
		t.Fatal("no room")
	}
	copy(f[virtionet.NumBuffers:], []byte{64, 0})
	if got := g.reap(at, []int{2048}); !bytes.Equal(got, f) {
		t.Fatal("the frame has changed")
	}
	for _, parts := range [][][]byte{{frame(maxFrame)}, {make([]byte, 11), make([]byte, 100)}, {}} {
		if !g.d.Send(parts...) {
			t.Fatal("what never has room was refused and not dropped")
		}
	}
	if to, from := g.d.Dropped(); to != 3 || from != 0 {
		t.Errorf("%d and %d frames were dropped, want 3 and 0", to, from)
	}
}

// TestRoom: Send refuses a frame and uses no buffer; later Room is called.
func TestRoom(t *testing.T) {
	for _, features := range []uint64{allFeatures, allFeatures &^ vhostuser.FeatureEventIdx} {
		t.Run(fmt.Sprintf("%#x", features), func(t *testing.T) {
			g := newGuest(t, features)
			at := map[uint16][]int{}
			offer := func(from, to int) (kicks int) {
				for id := from; id < to; id++ {
					var kicked bool
					if at[uint16(id)], kicked = g.offer(g.rx, id, 1500); kicked {
						kicks++
					}
				}
				return kicks
			}
			offer(0, 10)
			f := frame(60_000)
			if g.d.Send(f) {
				t.Fatal("ten buffers had room for 60,000 bytes")
			}
			if _, _, ok := g.rx.Reap(); ok {
				t.Fatal("buffers were taken")
			}
			if offer(10, 20) == 0 {
				t.Error("the guest was not asked to kick")
			}
			small := frame(100)
			if !g.d.Send(small) {
				t.Fatal("20 buffers had no room for 100 bytes")
			}
			copy(small[virtionet.NumBuffers:], []byte{1, 0})
			if got := g.reap(at, []int{1500}); !bytes.Equal(got, small) {
				t.Fatal("the small frame has changed")
			}
			for id := 20; id < 40; id++ {
				select {
				case <-g.host.room:
					t.Fatalf("there is room with %d buffers", id-1)
				default:
				}
				offer(id, id+1)
			}
			offer(40, 42)
			await(t, g.host.room, "room")
			if !g.d.Send(f) {
				t.Fatal("no room after all")
			}
			copy(f[virtionet.NumBuffers:], []byte{41, 0})
			if got := g.reap(at, []int{1500}); !bytes.Equal(got, f) {
				t.Fatal("the frame has changed")
			}
			if kicks := offer(0, 20); kicks > 1 {
				t.Errorf("%d kicks while nobody waits", kicks)
			}
		})
	}
}

// TestReceive takes frames of many parts, returns their buffers, and calls Flush.
func TestReceive(t *testing.T) {
	for _, features := range []uint64{allFeatures, allFeatures &^ vhostuser.FeatureEventIdx} {
		g := newGuest(t, features)
		g.free = vhosttest.Split - 12 // the first one continues in the other region
		// The used ring's index, in the upper half of its first word.
		used := func() uint16 { return binary.LittleEndian.Uint16(g.vm.Mem[g.tx.Used+2:]) }
		early := false
		g.host.mu.Lock()
		g.host.inside = func() { early = early || int(used()) >= len(g.host.frames) }
		g.host.mu.Unlock()
		want := [][]byte{g.send(0, 12, 14, 1500), g.send(3, 1, 4000, 61000), g.send(6, 12)}
		if got := g.host.received(t, 3); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatal("the frames have changed")
		}
		g.host.mu.Lock()
		if g.host.inside = nil; early {
			t.Error("a frame was given back while it was received")
		}
		g.host.mu.Unlock()
		for i := range 3 {
			id, n, ok := g.tx.Reap()
			for end := time.Now().Add(5 * time.Second); !ok && time.Now().Before(end); id, n, ok = g.tx.Reap() {
				time.Sleep(100 * time.Microsecond)
			}
			if int(id) != 3*i || n != 0 || !ok {
				t.Fatalf("frame %d came back as %d with %d bytes, %v", 3*i, id, n, ok)
			}
		}
		g.offer(g.tx, 9, maxFrame, 1)
		g.send(11, 12, 1)
		got := g.host.received(t, 4)
		if _, from := g.d.Dropped(); from != 1 || len(got) != 4 || len(got[3]) != 13 {
			t.Errorf("%d frames were dropped, want the one that is too large", from)
		}
	}
}

// TestStopped keeps frames waiting while the guest is paused or its driver restarts, and
// drops them if there is no guest.
func TestStopped(t *testing.T) {
	g := newGuest(t, allFeatures)
	g.offer(g.rx, 0, 100)
	if g.d.Send(frame(200)) {
		t.Fatal("100 bytes had room for 200")
	}
	g.vm.Stop(0)
	if g.d.Send(frame(50)) {
		t.Fatal("a frame for a guest that stands still was taken")
	}
	g.reset()
	g.offer(g.rx, 0, 500)
	await(t, g.host.room, "room for what waited through the reset")
	if !g.d.Send(frame(200)) {
		t.Fatal("no room")
	}
	// One more frame waits when the front-end goes away.
	if g.d.Send(frame(1000)) {
		t.Fatal("there was room")
	}
	g.vm.Disconnect()
	await(t, g.host.room, "the end")
	if !g.d.Send(frame(1000)) {
		t.Fatal("a frame for no VM was refused")
	}
}

// TestHostile checks that invalid input stops the device with one line in the log, that those
// who wait for room wake, and that a reset revives the device.
func TestHostile(t *testing.T) {
	for name, wrong := range map[string]func(*guest){
		"a frame without a header":   func(g *guest) { g.send(0, 11) },
		"a frame outside the memory": func(g *guest) { g.tx.PutDesc(g.tx.Desc, 0, 1<<60, 100, 0, 0); g.tx.Offer(0) },
		"a frame to write to": func(g *guest) {
			g.tx.PutDesc(g.tx.Desc, 0, 0, 100, vhosttest.Write, 0)
			g.tx.Offer(0)
		},
		"a loop":          func(g *guest) { g.tx.PutDesc(g.tx.Desc, 0, 0, 100, vhosttest.Next, 0); g.tx.Offer(0) },
		"a short buffer":  func(g *guest) { g.offer(g.rx, 0, 11); g.d.Send(frame(0)) },
		"an empty buffer": func(g *guest) { g.offer(g.rx, 0, 100); g.offer(g.rx, 1, 0); g.d.Send(frame(200)) },
		"a jumping index": func(g *guest) { g.rx.AvailIdx += 500; g.rx.Offer(0); g.d.Send(frame(0)) },
		"an index back": func(g *guest) {
			g.offer(g.rx, 0, 100)
			g.d.Send(frame(200))
			g.rx.AvailIdx -= 2
			g.rx.Offer(0)
			g.d.Send(frame(200))
		},
		"a buffer to read": func(g *guest) { g.rx.PutDesc(g.rx.Desc, 0, 0, 100, 0, 0); g.rx.Offer(0); g.d.Send(frame(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, allFeatures)
			if g.d.Send(frame(1)) {
				t.Fatal("no buffers had room")
			}
			wrong(g)
			await(t, g.host.room, "the end of the wait")
			for end := time.Now().Add(5 * time.Second); !g.d.dev.Broken(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the device goes on")
				}
			}
			if !g.d.Send(frame(1)) {
				t.Error("a stopped device refused a frame, which will never have room")
			}
			g.reset()
			at, _ := g.offer(g.rx, 0, 100)
			if !g.d.Send(frame(50)) {
				t.Fatal("no room")
			}
			if got := g.reap(map[uint16][]int{0: at}, []int{100}); len(got) != virtionet.HeaderLen+50 {
				t.Errorf("%d bytes came", len(got))
			}
			want := g.send(0, 12, 30)
			if got := g.host.received(t, 1); len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Error("the frame has changed")
			}
			g.vm.Close() // the log is complete then
			if n := strings.Count(g.log.String(), "level=ERROR"); n != 1 {
				t.Errorf("%d errors in the log, want 1:\n%s", n, &g.log)
			}
		})
	}
}

// TestPoorDriver refuses a driver that lacks features which the host's frames need.
func TestPoorDriver(t *testing.T) {
	for _, lacks := range []uint64{featGuestCsum, featGuestTSO4, featGuestTSO6, vhostuser.FeatureVersion1} {
		g := newGuest(t, allFeatures&^lacks)
		g.offer(g.rx, 0, 1000)
		if !g.d.dev.Broken() || !g.d.Send(frame(10)) {
			t.Errorf("a driver without %#x is served", lacks)
		}
		if _, _, ok := g.rx.Reap(); ok {
			t.Errorf("a driver without %#x has got a frame", lacks)
		}
		g.vm.Close()
		if n := strings.Count(g.log.String(), "lacks features"); n != 1 {
			t.Errorf("%d lines in the log, want 1:\n%s", n, &g.log)
		}
	}
}

// TestNoMergedBuffers drops frames that fit into no buffer of the guest.
func TestNoMergedBuffers(t *testing.T) {
	g := newGuest(t, allFeatures&^featMrgRxbuf)
	at, _ := g.offer(g.rx, 0, 1526)
	if !g.d.Send(frame(2000)) {
		t.Error("a frame that never has room was refused and not dropped")
	}
	if to, _ := g.d.Dropped(); to != 1 {
		t.Errorf("%d frames were dropped", to)
	}
	if !g.d.Send(frame(1514)) {
		t.Fatal("no room")
	}
	if f := g.reap(map[uint16][]int{0: at}, []int{1526}); len(f) != 1526 || f[virtionet.NumBuffers] != 1 {
		t.Errorf("%d bytes in %d buffers", len(f), f[virtionet.NumBuffers])
	}
}

// TestMemoryChange remaps the memory, and removes rings, during traffic both ways.
func TestMemoryChange(t *testing.T) {
	g := newGuest(t, allFeatures)
	stop := make(chan struct{})
	// The pauses leave the front-end a processor.
	pause := func() { time.Sleep(50 * time.Microsecond) }
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { // the host
			for f := frame(3000); ; {
				select {
				case <-stop:
					return
				default:
					g.d.Send(f)
					pause()
				}
			}
		})
	}
	for i := range g.rx.Num {
		g.offer(g.rx, i, 2048)
	}
	copy(g.vm.Mem[vhosttest.Split:], frame(100))
	wg.Go(func() { // the guest
		received := 0
		for sent := 0; ; {
			select {
			case <-stop:
				if received == 0 || sent == 0 {
					t.Errorf("%d frames were sent, %d received", sent, received)
				}
				return
			default:
			}
			if id, _, ok := g.rx.Reap(); ok {
				received++
				g.rx.Offer(id)
			}
			if _, _, ok := g.tx.Reap(); ok || sent < g.tx.Num {
				id := sent % g.tx.Num
				g.tx.PutDesc(g.tx.Desc, id, vhosttest.Address(vhosttest.Split), 100, 0, 0)
				g.tx.Offer(uint16(id))
				sent++
			} else {
				pause()
			}
		}
	})
	for i := range 60 {
		g.vm.SetMemory()
		g.vm.Enable(uint32(i%2), false)
		g.vm.Enable(uint32(i%2), true)
		for q, r := range []*vhosttest.Ring{g.rx, g.tx} {
			g.vm.Setup(uint32(q), r, g.vm.Stop(uint32(q)))
		}
		time.Sleep(time.Millisecond)
	}
	close(stop)
	wg.Wait()
	if g.log.Len() != 0 {
		t.Error(g.log.String())
	}
}

// TestAllocations sends and receives without allocations.
func TestAllocations(t *testing.T) {
	g := newGuest(t, allFeatures)
	g.host.keep.Store(false)
	for i := range g.rx.Num {
		g.offer(g.rx, i, 2048)
	}
	f := frame(9000)
	parts := [][]byte{f[:26], f[26:]}
	if n := testing.AllocsPerRun(100, func() {
		if !g.d.Send(parts...) {
			t.Fatal("no room")
		}
		for range 5 {
			id, _, _ := g.rx.Reap()
			g.rx.Offer(id)
		}
	}); n != 0 {
		t.Errorf("%v allocations for each frame to the guest", n)
	}
	for i := range 2 {
		g.tx.PutDesc(g.tx.Desc, i, vhosttest.Address(g.free), 1000, uint16(1-i), uint16(i+1))
	}
	n := testing.AllocsPerRun(100, func() {
		g.tx.Offer(0)
		for _, _, ok := g.tx.Reap(); !ok; _, _, ok = g.tx.Reap() {
			g.d.tx.service()
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for each frame of the guest", n)
	}
}
