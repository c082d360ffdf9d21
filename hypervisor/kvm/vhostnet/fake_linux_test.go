package vhostnet

import (
	"bytes"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
	"github.com/lsub/lsub/virtionet"
)

// allFeatures are the features that a device must offer.
const allFeatures = features | 1<<28 | 1<<29 | 1<<30 | 1<<32

// guest acts as QEMU and the card's driver.
type guest struct {
	t      testing.TB
	vm     *vhosttest.VM
	d      *Device
	rx, tx *vhosttest.Ring
	host   *host
	free   int // offset in the memory of the next buffer
	log    bytes.Buffer
}

// host is the receiver of a test.
type host struct {
	keep    atomic.Bool // copy each frame
	mu      sync.Mutex
	frames  [][]byte
	flushed int           // frames before the last Flush
	arrived chan struct{} // holds a token after Flush
	room    chan struct{} // holds a token after Room
	inside  func()        // runs in Receive
}

func (h *host) Receive(parts [][]byte) {
	if !h.keep.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames = append(h.frames, bytes.Join(parts, nil))
	if h.inside != nil {
		h.inside()
	}
}

func (h *host) Flush() {
	h.mu.Lock()
	h.flushed = len(h.frames)
	h.mu.Unlock()
	token(h.arrived)
}

func (h *host) Room() { token(h.room) }

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits for a token.
func await(t testing.TB, c chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("waited for ", what)
	}
}

// received waits until the host has had n frames and a Flush after them, and returns them.
func (h *host) received(t testing.TB, n int) [][]byte {
	t.Helper()
	for {
		h.mu.Lock()
		frames, flushed := h.frames, h.flushed
		h.mu.Unlock()
		if flushed >= n {
			return frames
		}
		await(t, h.arrived, "frames")
	}
}

// buffers is the offset of the guests' buffers.
const buffers = 2 << 20

// newGuest starts a device and connects a driver that takes features.
func newGuest(t testing.TB, features uint64) *guest {
	t.Helper()
	g := &guest{t: t, free: buffers, host: &host{arrived: make(chan struct{}, 1), room: make(chan struct{}, 1)}}
	g.host.keep.Store(true)
	g.d = New(func(c virtionet.Card) virtionet.Receiver { return g.host },
		slog.New(slog.NewTextHandler(&g.log, nil)))
	g.vm = vhosttest.New(t, g.d.Serve)
	t.Cleanup(func() {
		g.vm.Close()
		_ = g.d.Close()
	})
	if o, want := g.vm.Handshake(), (vhosttest.Offer{Features: allFeatures, Protocol: 1<<0 | 1<<3 | 1<<13 | 1<<15, MaxQueues: 1}); o != want {
		t.Fatalf("the device offers %#x, want %#x", o, want)
	}
	g.vm.SetFeatures(features)
	g.vm.SetMemory()
	g.rx, g.tx = g.vm.NewRing(0, 64), g.vm.NewRing(1<<20, 16)
	g.start()
	return g
}

func (g *guest) start() {
	g.t.Helper()
	g.vm.Setup(0, g.rx, 0)
	g.vm.Setup(1, g.tx, 0)
}

// reset restarts the driver.
func (g *guest) reset() {
	g.t.Helper()
	g.vm.Stop(0)
	g.vm.Stop(1)
	g.rx.Clear()
	g.tx.Clear()
	g.free = buffers
	g.start()
}

// offer makes a chain of buffers of these sizes available in a ring, beginning with the
// ring's entry id. It returns the buffers' offsets.
func (g *guest) offer(r *vhosttest.Ring, id int, sizes ...int) (at []int, kicked bool) {
	flags := uint16(vhosttest.Write)
	if r == g.tx {
		flags = 0
	}
	for i, n := range sizes {
		next := flags
		if i < len(sizes)-1 {
			next |= vhosttest.Next
		}
		r.PutDesc(r.Desc, id+i, vhosttest.Address(g.free), n, next, uint16(id+i+1))
		at = append(at, g.free)
		g.free += n
	}
	return at, r.Offer(uint16(id))
}

// send has the guest send a frame of parts of these sizes, and returns the frame.
func (g *guest) send(id int, sizes ...int) []byte {
	var frame []byte
	at := g.free
	for _, n := range sizes {
		for i := range n {
			frame = append(frame, byte(len(frame)*7+i))
		}
	}
	copy(g.vm.Mem[at:], frame)
	g.offer(g.tx, id, sizes...)
	return frame
}

// frame returns a frame for the guest, with its header.
func frame(size int) []byte {
	f := make([]byte, virtionet.HeaderLen+size)
	for i := range f {
		f[i] = byte(i*13 + i>>8)
	}
	return f
}
