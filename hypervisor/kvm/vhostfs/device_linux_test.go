package vhostfs

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
)

const (
	features  = 1<<28 | 1<<29 | 1<<30 | 1<<32
	headerLen = 40
	ringAt    = 0x100000 // of the first ring in the memory
	dataAt    = 0x400000
)

// server answers each request with its own bytes, or waits for the end of block.
type server struct {
	block chan struct{}
	taken chan struct{}
}

func (s *server) Handle(_ context.Context, in, out [][]byte) int {
	if s.block != nil {
		s.taken <- struct{}{}
		<-s.block
	}
	n := 0
	for _, b := range in {
		n += len(b)
	}
	var first []byte
	for _, b := range in {
		first = append(first, b...)
	}
	for _, b := range out {
		first = first[copy(b, first):]
	}
	return n
}

// guest is a driver with one request queue, whose chains have a readable and a writable part.
type guest struct {
	*vhosttest.VM
	hiprio, ring *vhosttest.Ring
}

func start(t *testing.T, serve func(*net.UnixConn) error) *guest {
	v := vhosttest.New(t, serve)
	t.Cleanup(v.Close)
	v.Handshake()
	v.SetFeatures(features)
	v.SetMemory()
	g := &guest{VM: v, hiprio: v.NewRing(ringAt, 16), ring: v.NewRing(ringAt+vhosttest.RingSpace, 16)}
	v.Setup(0, g.hiprio, 0)
	v.Setup(1, g.ring, 0)
	return g
}

// send offers a request by descriptors 2i and 2i+1.
func (g *guest) send(i int, unique uint64) {
	at := dataAt + i*4096
	le := binary.LittleEndian
	req := g.Mem[at : at+headerLen]
	clear(req)
	le.PutUint32(req, headerLen)
	le.PutUint32(req[4:], 3) // GETATTR
	le.PutUint64(req[8:], unique)
	g.put(2*i, at, headerLen, vhosttest.Next)
	g.put(2*i+1, at+2048, 64, vhosttest.Write)
	g.ring.Offer(uint16(2 * i))
}

func (g *guest) put(i, at, n int, flags uint16) {
	g.ring.PutDesc(g.ring.Desc, i, vhosttest.Address(at), n, flags, uint16(i+1))
}

// reap waits for the next chain that comes back.
func (g *guest) reap() (head uint16, n int) {
	g.T.Helper()
	for begin := time.Now(); ; {
		if head, n, ok := g.ring.Reap(); ok {
			return head, n
		}
		ready := []unix.PollFd{{Fd: int32(g.ring.Call), Events: unix.POLLIN}}
		_, _ = unix.Poll(ready, 1000)
		vhosttest.Drain(g.ring.Call)
		if time.Since(begin) > 30*time.Second {
			g.T.Fatal("no request comes back")
		}
	}
}

// answer is what was written for request i.
func (g *guest) answer(i int) []byte {
	at := dataAt + i*4096 + 2048
	return g.Mem[at : at+64]
}

func inflight(t *testing.T, queues int) []byte {
	fd, err := unix.MemfdCreate("inflight", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inflight")
	defer f.Close()
	if err := f.Truncate(int64(InflightLen(queues))); err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(fd, 0, InflightLen(queues), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func TestRequests(t *testing.T) {
	d := New(&server{}, 1, inflight(t, 1), slog.New(slog.NewTextHandler(t.Output(), nil)))
	g := start(t, d.Serve)
	for i := range 100 {
		g.send(0, uint64(i))
		g.send(1, uint64(i)+1000)
		for range 2 {
			head, n := g.reap()
			if n != headerLen {
				t.Fatalf("%d bytes", n)
			}
			want := uint64(i) + 1000*uint64(head/2)
			if got := binary.LittleEndian.Uint64(g.answer(int(head / 2))[8:]); got != want {
				t.Fatalf("answer to %d, want %d", got, want)
			}
		}
	}
	if base := g.Stop(1); base != 200 {
		t.Errorf("the ring stops at %d", base)
	}
}

// TestMalformed has the guest mix up the parts of a chain: the device stops until it is reset.
func TestMalformed(t *testing.T) {
	d := New(&server{}, 1, inflight(t, 1), slog.New(slog.NewTextHandler(t.Output(), nil)))
	g := start(t, d.Serve)
	g.put(0, dataAt, 64, vhosttest.Next|vhosttest.Write)
	g.put(1, dataAt, 40, 0)
	g.ring.Offer(0)
	for begin := time.Now(); !d.dev.Broken(); {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("the device goes on")
		}
	}
	g.Stop(0)
	g.Stop(1)
	g.ring.Clear()
	g.Setup(1, g.ring, 0)
	g.send(0, 7)
	if _, n := g.reap(); n != headerLen {
		t.Errorf("%d bytes", n)
	}
}

// TestBackendDies has a back-end die with requests in progress, twice.
func TestBackendDies(t *testing.T) {
	memory := inflight(t, 1)
	first := &server{block: make(chan struct{}), taken: make(chan struct{}, 16)}
	servers := []*server{first, {block: first.block, taken: first.taken}, {}}
	var mu sync.Mutex
	var back *net.UnixConn
	starts := 0
	connect := func(context.Context) (*net.UnixConn, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		back = unixConn(t, fds[1])
		d := New(servers[starts], 1, memory, nil)
		starts++
		go d.Serve(back)
		return unixConn(t, fds[0]), nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	g := start(t, func(conn *net.UnixConn) error {
		r := &vhostuser.Relay{Connect: connect, Name: "fs", Logger: slog.New(slog.DiscardHandler)}
		return r.Serve(ctx, conn)
	})
	defer cancel()
	die := func() {
		mu.Lock()
		defer mu.Unlock()
		back.Close()
	}
	failed := func(head uint16, n, i int, unique uint64) {
		t.Helper()
		le := binary.LittleEndian
		errno, of := int32(le.Uint32(g.answer(i)[4:])), le.Uint64(g.answer(i)[8:])
		if int(head) != 2*i || n != 16 || errno != -int32(unix.EIO) || of != unique {
			t.Fatalf("chain %d has %d bytes, error %d, of request %d", head, n, errno, of)
		}
	}
	g.send(0, 1)
	<-first.taken
	g.send(1, 2) // is not taken: the device's goroutine is busy
	die()
	head, n := g.reap()
	failed(head, n, 0, 1)
	<-first.taken // the second back-end has the other one now
	die()
	head, n = g.reap()
	failed(head, n, 1, 2)
	g.send(3, 99)
	if head, n := g.reap(); head != 6 || n != headerLen {
		t.Errorf("chain %d has %d bytes", head, n)
	}
	if starts != 3 {
		t.Errorf("%d back-ends", starts)
	}
	if base := g.Stop(1); base != 3 {
		t.Errorf("the ring stops at %d", base)
	}
}

func unixConn(t *testing.T, fd int) *net.UnixConn {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}
