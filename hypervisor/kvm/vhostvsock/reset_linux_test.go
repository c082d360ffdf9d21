package vhostvsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
)

func TestReset(t *testing.T) {
	g, l := reflecting(t, fakeOptions{})
	a, b := pair(t, g, l)
	_, err := a.Write([]byte("last words"))
	check(t, err)
	time.Sleep(20 * time.Millisecond)
	g.reset()
	if got, err := io.ReadAll(b); string(got) != "last words" || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	a, b = pair(t, g, l)
	a.Close()
	b.Close()
	waitNoStreams(t, g)
}

// TestPause checks that streams survive a stop without a reset.
func TestPause(t *testing.T) {
	g, l := reflecting(t, fakeOptions{})
	a, b := pair(t, g, l)
	rx, tx := g.halt()
	go func() { _, _ = a.Write([]byte("while paused")) }()
	dialed := make(chan error, 1)
	go func() {
		c, err := g.d.Dial(context.Background(), reflectGuest)
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	time.Sleep(20 * time.Millisecond)
	g.fe.SetMemory()
	g.setup(0, g.rx, rx)
	g.setup(1, g.tx, tx)
	g.drive()
	got := make([]byte, 12)
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "while paused" {
		t.Fatalf("%q, %v", got, err)
	}
	check(t, <-dialed)
	c, err := l.Accept()
	check(t, err)
	for _, s := range []net.Conn{a, b, c} {
		s.Close()
	}
	waitNoStreams(t, g)
}

func TestDisconnect(t *testing.T) {
	g, l := reflecting(t, fakeOptions{})
	a, b := pair(t, g, l)
	_, err := a.Write([]byte("kept"))
	check(t, err)
	for { // until it is here
		b.mu.Lock()
		n := b.buf.Len()
		b.mu.Unlock()
		if n == 4 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	ended := make(chan error, 2)
	go func() { _, err := a.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := l.Accept(); ended <- err }()
	time.Sleep(5 * time.Millisecond)
	g.conn.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(b); string(got) != "kept" || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("%q, %v", got, err)
	}
	a.Close()
	b.Close()
}

func TestDialBeforeDriver(t *testing.T) {
	g := newFake(t, fakeOptions{noStart: true, onPacket: reflect})
	l, err := g.d.Listen(reflectHost)
	check(t, err)
	time.AfterFunc(30*time.Millisecond, func() { g.start(0) })
	a, b := pair(t, g, l)
	a.Close()
	b.Close()
	waitNoStreams(t, g)
}

// TestHostileRing checks that an invalid ring stops the device, and that a reset revives it.
func TestHostileRing(t *testing.T) {
	g, l := reflecting(t, fakeOptions{})
	a, b := pair(t, g, l)
	g.mu.Lock()
	g.tx.PutDesc(g.tx.Desc, int(g.tx.free[0]), 1<<60, 100, 0, 0)
	g.mem[g.tx.Avail+4+2*(int(g.tx.AvailIdx)%g.tx.Num)] = byte(g.tx.free[0])
	g.mu.Unlock()
	// Jumps beyond the driver's entries; out of bounds either way.
	g.mem[g.tx.Avail+3] ^= 0x40
	vhosttest.Signal(g.tx.Kick)
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := g.d.Dial(ctx, reflectGuest); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	g.reset()
	a, b = pair(t, g, l)
	a.Close()
	b.Close()
	waitNoStreams(t, g)
}

// TestHostileSetup checks that a guest with its ring at an invalid address stops only its own
// device.
func TestHostileSetup(t *testing.T) {
	g, l := reflecting(t, fakeOptions{noStart: true})
	g.tx.Used += 2
	g.setup(0, g.rx, 0)
	g.setup(1, g.tx, 0)
	if !g.d.dev.Broken() {
		t.Fatal("a misaligned ring was taken")
	}
	g.tx.Used -= 2
	g.reset()
	a, b := pair(t, g, l)
	a.Close()
	b.Close()
	waitNoStreams(t, g)
}

func TestNoDescriptorLeaks(t *testing.T) {
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		check(t, err)
		return len(list)
	}
	before := count()
	for range 5 {
		t.Run("", func(t *testing.T) {
			g, l := reflecting(t, fakeOptions{})
			a, b := pair(t, g, l)
			a.Close()
			b.Close()
			g.reset()
		})
	}
	if after := count(); after > before+1 { // the poller has one of its own
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
