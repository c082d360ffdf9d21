package vhostvsock

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeRing is a driver's side of a split virtqueue, built by hand.
type fakeRing struct {
	g                 *fakeVM
	num               int
	desc, avail, used int // offsets in memory
	bufs, bufLen      int // offset and size of each entry's buffer
	tables            int // offset of the entries' indirect tables
	free              []uint16
	availIdx, seen    uint16
	kick, call        int
}

// fakeVM plays QEMU and the guest's vsock driver.
type fakeVM struct {
	t                  testing.TB
	conn               *net.UnixConn
	d                  *Device
	memfd              int
	mem                []byte
	eventIdx, indirect bool

	mu     sync.Mutex // guards both rings
	rx, tx *fakeRing
	space  *sync.Cond // tx has free entries, perhaps
	done   atomic.Bool
	stop   int // eventfd
	wg     sync.WaitGroup
	served chan error

	// onPacket runs for each packet from the host, in order.
	onPacket func(h header, payload []byte)
	hold     atomic.Bool // the driver takes no packets
	acks     bool        // REPLY_ACK is negotiated
	mayFail  bool        // Serve is expected to return an error
	leaks    bool        // streams are left open on purpose
}

const (
	fakeMem   = 16 << 20
	fakeSplit = 8 << 20 // the second region's offset in the file
	fakeHigh  = 4 << 30 // and its guest-physical address
	fakeUser  = 0x7f00_0000_0000
	fakeCID   = 42
)

// gpa returns the guest-physical address of an offset.
func gpa(off int) uint64 {
	if off >= fakeSplit {
		return fakeHigh + uint64(off-fakeSplit)
	}
	return uint64(off)
}

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
	g := &fakeVM{t: t, d: New(o.cfg), eventIdx: !o.noEventIdx, indirect: o.indirect, served: make(chan error, 1)}
	g.space = sync.NewCond(&g.mu)
	g.onPacket = func(h header, p []byte) {
		if o.onPacket != nil {
			o.onPacket(g, h, p)
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	g.conn = unixConn(t, fds[0])
	back := unixConn(t, fds[1])
	go func() { g.served <- g.d.Serve(back) }()
	g.memfd, err = unix.MemfdCreate("fake", unix.MFD_CLOEXEC)
	check(t, err)
	check(t, unix.Ftruncate(g.memfd, fakeMem))
	g.mem, err = unix.Mmap(g.memfd, 0, fakeMem, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	g.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	check(t, err)
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

func unixConn(t testing.TB, fd int) *net.UnixConn {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	check(t, err)
	return c.(*net.UnixConn)
}

func (g *fakeVM) newRing(at, num, bufLen int) *fakeRing {
	r := &fakeRing{g: g, num: num, desc: at, avail: at + 0x10002, used: at + 0x20000, tables: at + 0x30000, bufLen: bufLen}
	r.bufs = 2 << 20
	if at != 0 { // the transmit buffers are in the second region
		r.bufs = fakeSplit
	}
	for i := range r.num {
		r.free = append(r.free, uint16(i))
	}
	var err error
	r.kick, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	check(g.t, err)
	r.call, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	check(g.t, err)
	return r
}

// request sends a message; with ack it waits for and returns the answer.
func (g *fakeVM) request(req uint32, reply bool, payload []byte, fds ...int) []byte {
	g.t.Helper()
	b := encodeReply(req, payload)
	flags := uint32(msgVersion)
	if !reply {
		flags |= msgNeedReply
	}
	binary.LittleEndian.PutUint32(b[4:], flags)
	_, _, err := g.conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	check(g.t, err)
	if !reply && req != msgSetProtocolFeatures && g.acks || reply {
		ans := g.answer(req)
		if !reply && binary.LittleEndian.Uint64(ans) != 0 {
			g.t.Fatalf("request %d was refused", req)
		}
		return ans
	}
	return nil
}

func (g *fakeVM) answer(req uint32) []byte {
	g.t.Helper()
	var h [msgHeaderLen]byte
	_, err := io.ReadFull(g.conn, h[:])
	check(g.t, err)
	if got := binary.LittleEndian.Uint32(h[:]); got != req {
		g.t.Fatalf("answer to %d, want %d", got, req)
	}
	p := make([]byte, binary.LittleEndian.Uint32(h[8:]))
	_, err = io.ReadFull(g.conn, p)
	check(g.t, err)
	return p
}

func u64(v uint64) []byte          { return binary.LittleEndian.AppendUint64(nil, v) }
func state(i uint32, n int) []byte { return u64(uint64(i) | uint64(n)<<32) }

// handshake does what QEMU does before the guest's driver is up.
func (g *fakeVM) handshake() {
	le := binary.LittleEndian
	if f := le.Uint64(g.request(msgGetFeatures, true, nil)); f != features {
		g.t.Fatalf("features %#x", f)
	}
	if f := le.Uint64(g.request(msgGetProtocolFeatures, true, nil)); f != protoFeatures {
		g.t.Fatalf("protocol features %#x", f)
	}
	g.request(msgSetProtocolFeatures, false, u64(protoFeatures))
	g.answer(msgSetProtocolFeatures) // acknowledged as soon as it is negotiated
	g.acks = true
	if n := le.Uint64(g.request(msgGetQueueNum, true, nil)); n != numQueues {
		g.t.Fatalf("%d queues", n)
	}
	g.request(msgSetOwner, false, nil)
	conf := g.request(msgGetConfig, true, append(append(state(0, 8), 0, 0, 0, 0), make([]byte, 8)...))
	if cid := le.Uint64(conf[12:]); cid != fakeCID {
		g.t.Fatalf("cid %d", cid)
	}
	feats := uint64(featIndirectDesc | featProtocol | featVersion1)
	if g.eventIdx {
		feats |= featEventIdx
	}
	g.request(msgSetFeatures, false, u64(feats))
	g.setMemory()
}

func (g *fakeVM) setMemory() {
	table := u64(2)
	for _, r := range []memRegion{{0, fakeSplit, fakeUser, 0}, {fakeHigh, fakeMem - fakeSplit, fakeUser + fakeHigh, fakeSplit}} {
		for _, v := range []uint64{r.GuestAddr, r.Size, r.UserAddr, r.MmapOffset} {
			table = append(table, u64(v)...)
		}
	}
	g.request(msgSetMemTable, false, table, g.memfd, g.memfd)
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

func (g *fakeVM) setup(i uint32, r *fakeRing, base int) {
	g.request(msgSetVringNum, false, state(i, r.num))
	g.request(msgSetVringBase, false, state(i, base))
	var a []byte
	for _, v := range []uint64{uint64(i), fakeUser + uint64(r.desc), fakeUser + uint64(r.used), fakeUser + uint64(r.avail), 0} {
		a = append(a, u64(v)...)
	}
	g.request(msgSetVringAddr, false, a)
	g.request(msgSetVringCall, false, u64(uint64(i)), r.call)
	g.request(msgSetVringKick, false, u64(uint64(i)), r.kick)
	g.request(msgSetVringEnable, false, state(i, 1))
}

// halt stops the driver's goroutine and both rings, as a reset or a pause
// does, and returns their positions.
func (g *fakeVM) halt() (rx, tx int) {
	g.halted()
	rx = int(binary.LittleEndian.Uint32(g.request(msgGetVringBase, true, state(0, 0))[4:]))
	tx = int(binary.LittleEndian.Uint32(g.request(msgGetVringBase, true, state(1, 0))[4:]))
	return rx, tx
}

func (g *fakeVM) halted() {
	g.done.Store(true)
	signal(g.stop)
	g.mu.Lock()
	g.space.Broadcast()
	g.mu.Unlock()
	g.wg.Wait()
	var b [8]byte
	_, _ = unix.Read(g.stop, b[:])
}

// reset brings the driver up anew, with rings that hold nothing.
func (g *fakeVM) reset() {
	g.halt()
	for _, r := range []*fakeRing{g.rx, g.tx} {
		clear(g.mem[r.avail : r.avail+0x1000])
		clear(g.mem[r.used : r.used+0x1000])
		r.availIdx, r.seen, r.free = 0, 0, nil
		for i := range r.num {
			r.free = append(r.free, uint16(i))
		}
	}
	g.start(0)
}

func (g *fakeVM) close() {
	g.halted()
	_ = g.conn.Close()
	select {
	case err := <-g.served:
		if err != nil && !g.mayFail {
			g.t.Errorf("Serve: %v", err)
		}
	case <-time.After(10 * time.Second):
		g.t.Error("Serve did not return")
	}
	_ = g.d.Close()
	for _, fd := range []int{g.rx.kick, g.rx.call, g.tx.kick, g.tx.call, g.memfd, g.stop} {
		_ = unix.Close(fd)
	}
	_ = unix.Munmap(g.mem)
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

// reflect is a guest that joins each stream the host opens to reflectGuest
// with one it opens to the host's reflectHost, by passing each packet on. Both
// ends of the pair are the device's, and their credit is each other's.
func reflect(g *fakeVM, h header, payload []byte) {
	h.SrcCID, h.DstCID = fakeCID, hostCID
	if h.DstPort == reflectGuest {
		h.DstPort = reflectHost
	} else {
		h.SrcPort = reflectGuest
	}
	g.send(h, payload)
}
