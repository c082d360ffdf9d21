package vhostvsock

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
)

// fakeRing is a driver's side of a virtqueue with a buffer for each entry.
type fakeRing struct {
	*vhosttest.Ring
	g            *fakeVM
	bufs, bufLen int // offset and size of each entry's buffer
	tables       int // offset of the entries' indirect tables
	free         []uint16
}

// fakeVM acts as QEMU and the guest's vsock driver.
type fakeVM struct {
	t        testing.TB
	fe       *vhosttest.VM
	d        *Device
	mem      []byte
	conn     *net.UnixConn
	indirect bool
	features uint64 // features that the driver takes

	mu     sync.Mutex // guards both rings
	rx, tx *fakeRing
	space  *sync.Cond // signalled when tx may have free entries
	done   atomic.Bool
	stop   int // eventfd
	wg     sync.WaitGroup

	// onPacket runs for each packet from the host, in order.
	onPacket func(h header, payload []byte)
	hold     atomic.Bool // the driver takes no packets
	leaks    bool        // streams are left open on purpose
}

const fakeCID = 42

// The features that a device must offer, and those of the protocol.
const (
	indirectDesc = 1 << 28
	eventIdx     = 1 << 29
	allFeatures  = indirectDesc | eventIdx | 1<<30 | 1<<32
	allProtocol  = 1<<0 | 1<<3 | 1<<9 | 1<<13 | 1<<15
)

type fakeOptions struct {
	cfg                  Config
	noEventIdx, indirect bool
	rxBuf                int
	onPacket             func(g *fakeVM, h header, payload []byte)
	noStart              bool
}

func newFake(t testing.TB, o fakeOptions) *fakeVM {
	t.Helper()
	o.cfg.GuestCID = fakeCID
	d := New(o.cfg)
	g := &fakeVM{t: t, d: d, fe: vhosttest.New(t, d.Serve), indirect: o.indirect, features: allFeatures}
	if o.noEventIdx {
		g.features &^= eventIdx
	}
	g.mem, g.conn = g.fe.Mem, g.fe.Conn
	g.space = sync.NewCond(&g.mu)
	g.onPacket = func(h header, p []byte) {
		if o.onPacket != nil {
			o.onPacket(g, h, p)
		}
	}
	g.stop = g.fe.Eventfd()
	if o.rxBuf == 0 {
		o.rxBuf = 4096
	}
	g.rx = g.newRing(0, 128, o.rxBuf)
	g.tx = g.newRing(1<<20, 64, headerLen+maxPayload)
	t.Cleanup(g.close)
	g.handshake()
	if !o.noStart {
		g.start(0)
	}
	return g
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *fakeVM) newRing(at, num, bufLen int) *fakeRing {
	r := &fakeRing{g: g, Ring: g.fe.NewRing(at, num), tables: at + vhosttest.RingSpace, bufLen: bufLen}
	r.bufs = 2 << 20
	if at != 0 { // the transmit buffers are in the second region
		r.bufs = vhosttest.Split
	}
	for i := range r.Num {
		r.free = append(r.free, uint16(i))
	}
	return r
}

// handshake does QEMU's part before the guest's driver is up.
func (g *fakeVM) handshake() {
	if o, want := g.fe.Handshake(), (vhosttest.Offer{Features: allFeatures, Protocol: allProtocol, MaxQueues: 2}); o != want {
		g.t.Fatalf("the device offers %#x, want %#x", o, want)
	}
	if cid := binary.LittleEndian.Uint64(g.fe.Config(8)); cid != fakeCID {
		g.t.Fatalf("cid %d", cid)
	}
	g.fe.SetFeatures(g.features)
	g.fe.SetMemory()
}

// start sets both rings up at base and starts the driver.
func (g *fakeVM) start(base int) {
	for i, r := range []*fakeRing{g.rx, g.tx} {
		g.setup(uint32(i), r, base)
	}
	g.drive()
}

// drive starts the driver: it posts its buffers and waits for interrupts.
func (g *fakeVM) drive() {
	g.done.Store(false)
	g.mu.Lock()
	g.refill()
	g.mu.Unlock()
	g.wg.Go(g.run)
}

func (g *fakeVM) setup(i uint32, r *fakeRing, base int) { g.fe.Setup(i, r.Ring, base) }

// halt stops the driver's goroutine and both rings, as a reset or a pause
// does, and returns their positions.
func (g *fakeVM) halt() (rx, tx int) {
	g.halted()
	return g.fe.Stop(0), g.fe.Stop(1)
}

func (g *fakeVM) halted() {
	g.done.Store(true)
	vhosttest.Signal(g.stop)
	g.mu.Lock()
	g.space.Broadcast()
	g.mu.Unlock()
	g.wg.Wait()
	vhosttest.Drain(g.stop)
}

// reset restarts the driver, with empty rings.
func (g *fakeVM) reset() {
	g.halt()
	for _, r := range []*fakeRing{g.rx, g.tx} {
		r.Clear()
		r.free = nil
		for i := range r.Num {
			r.free = append(r.free, uint16(i))
		}
	}
	g.start(0)
}

func (g *fakeVM) close() {
	g.halted()
	g.fe.Close()
	_ = g.d.Close()
	if n := len(g.d.all()); n != 0 {
		g.t.Errorf("%d streams are left", n)
	}
	if g.d.reserved != 0 && !g.leaks {
		g.t.Errorf("%d bytes of buffers are still promised", g.d.reserved)
	}
}

// packet builds a packet from the guest's port to the host's.
func packet(op uint16, guest, host uint32) header {
	return header{SrcCID: fakeCID, DstCID: hostCID, SrcPort: guest, DstPort: host, Type: typeStream, Op: op, BufAlloc: 64 << 10}
}

const reflectGuest, reflectHost = 7000, 8000

// reflect is a guest that joins each stream that the host opens to reflectGuest to a stream
// that it opens to the host's reflectHost. It passes each packet on. Both ends of the pair
// are the device's, and each has the credit of the other.
func reflect(g *fakeVM, h header, payload []byte) {
	h.SrcCID, h.DstCID = fakeCID, hostCID
	if h.DstPort == reflectGuest {
		h.DstPort = reflectHost
	} else {
		h.SrcPort = reflectGuest
	}
	g.send(h, payload)
}
