package guesttcp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/guest/agent/tcredirect/tcredirecttest"
)

// kernel is a Linux kernel's loopback, in a network namespace of the test, and a link to it.
type kernel struct {
	*testing.T
	ns   *tcredirecttest.Namespace
	link *Link
}

// newKernel makes one. send stands between the link and the card, receive between the card
// and the link; either may be nil.
func newKernel(t *testing.T, cfg Config, send func(parts ...[]byte) bool, receive func(parts [][]byte) bool) *kernel {
	t.Helper()
	k := &kernel{T: t, ns: tcredirecttest.New(t)}
	// As in the VM: other algorithms recover slowly from the test's losses.
	k.ns.Do(func() { os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("cubic"), 0) })
	cfg.Card = cardFunc(func(parts ...[]byte) bool {
		if send != nil && !send(parts...) {
			return true // lost
		}
		return k.ns.Send(parts...)
	})
	k.link = New(cfg)
	t.Cleanup(func() { k.link.Close() })
	k.ns.Receive(func(parts [][]byte) {
		if receive == nil || receive(parts) {
			k.link.Receive(parts)
		}
	}, k.link.Flush)
	return k
}

// listen listens in the namespace. serve is called for each connection.
func (k *kernel) listen(at string, serve func(c *net.TCPConn)) netip.AddrPort {
	k.Helper()
	var l net.Listener
	var err error
	k.ns.Do(func() { l, err = net.Listen("tcp", at) })
	if err != nil {
		k.Fatal(err)
	}
	k.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	a := l.Addr().(*net.TCPAddr).AddrPort()
	if a.Addr().Is6() && !a.Addr().IsUnspecified() {
		return netip.AddrPortFrom(loopback6, a.Port())
	}
	return netip.AddrPortFrom(loopback4, a.Port())
}

const patience = 60 * time.Second

func (k *kernel) dial(to netip.AddrPort) *Conn {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := k.link.Dial(ctx, to)
	if err != nil {
		k.Fatal(err)
	}
	k.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func echo(c *net.TCPConn) {
	defer c.Close()
	io.Copy(c, c)
}

// idle waits until the link has no connection any more.
func (k *kernel) idle() {
	k.Helper()
	for end := time.Now().Add(patience); len(k.link.all()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			k.Fatalf("%d connections are left", len(k.link.all()))
		}
	}
	k.link.mu.Lock()
	defer k.link.mu.Unlock()
	if k.link.promised != 0 {
		k.Errorf("%d bytes are still promised", k.link.promised)
	}
}

func TestEcho(t *testing.T) {
	k := newKernel(t, Config{}, nil, nil)
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		peers := make(chan net.Addr, 1)
		to := k.listen(at, func(c *net.TCPConn) { peers <- c.RemoteAddr(); echo(c) })
		c := k.dial(to)
		for _, size := range []int{1, 1000, maxSegment, 200_000} {
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(rand.Uint32())
			}
			go c.Write(want)
			got := make([]byte, size)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %d bytes do not come back: %v", at, size, err)
			}
		}
		if peer := (<-peers).String(); peer != c.LocalAddr().String() {
			t.Errorf("%s: the server sees %s, and %s was used", at, peer, c.LocalAddr())
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("%s: no end, but %v", at, err)
		}
		c.Close()
	}
	k.idle()
}

func TestRefused(t *testing.T) {
	k := newKernel(t, Config{}, nil, nil)
	for _, to := range []string{"127.0.0.1:9", "[::1]:9"} {
		_, err := k.link.Dial(context.Background(), netip.MustParseAddrPort(to))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", to, err)
		}
	}
	if _, err := k.link.Dial(context.Background(), netip.MustParseAddrPort("127.0.0.2:9")); err == nil {
		t.Error("another address is dialed")
	}
	k.idle()
}

// stream returns size bytes and, at their end, their hash.
func stream(seed byte, size int64) (io.Reader, <-chan [32]byte) {
	h := sha256.New()
	sum := make(chan [32]byte, 1)
	src := io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
	return io.TeeReader(&sealed{src, func() { sum <- [32]byte(h.Sum(nil)) }}, h), sum
}

// sealed calls a function at the end.
type sealed struct {
	io.Reader
	end func()
}

func (s *sealed) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		s.end()
	}
	return n, err
}

// bothWays sends size bytes each way at once, and checks the received bytes.
func (k *kernel) bothWays(at string, size int64) {
	k.Helper()
	type result struct {
		sum [32]byte
		err error
	}
	heard := make(chan result, 1)
	down, downSum := stream(1, size)
	to := k.listen(at, func(c *net.TCPConn) {
		defer c.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			io.Copy(struct{ io.Writer }{c}, down)
			c.CloseWrite()
		})
		h := sha256.New()
		_, err := io.Copy(h, c)
		wg.Wait()
		heard <- result{[32]byte(h.Sum(nil)), err}
	})
	c := k.dial(to)
	up, upSum := stream(2, size)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.CopyBuffer(struct{ io.Writer }{c}, up, make([]byte, 130_000)); err != nil {
			k.Errorf("write: %v", err)
		}
		c.CloseWrite()
	})
	h := sha256.New()
	n, err := io.Copy(h, c)
	wg.Wait()
	if n != size || err != nil {
		k.Fatalf("from the guest: %d bytes of %d: %v", n, size, err)
	}
	if [32]byte(h.Sum(nil)) != <-downSum {
		k.Error("from the guest: other bytes come than were sent")
	}
	if r := <-heard; r.err != nil || r.sum != <-upSum {
		k.Errorf("to the guest: other bytes come than were sent, or fewer: %v", r.err)
	}
	c.Close()
}

func TestBulk(t *testing.T) {
	k := newKernel(t, Config{}, nil, nil)
	k.bothWays("127.0.0.1:0", 256<<20)
	k.bothWays("[::1]:0", 64<<20)
	k.idle()
}

// TestLoss loses frames: every 17th to the guest, as with a full backlog, but only a few from
// it. A kernel without selective acknowledgements needs seconds for each of many.
func TestLoss(t *testing.T) {
	var to, from atomic.Int64
	k := newKernel(t, Config{}, func(...[]byte) bool { return to.Add(1)%17 != 0 }, func([][]byte) bool {
		n := from.Add(1)
		return n != 10 && n != 40 && n != 100
	})
	for range 3 {
		k.bothWays("127.0.0.1:0", 4<<20)
	}
	if to.Load() < 100 || from.Load() < 100 {
		t.Errorf("only %d and %d frames", to.Load(), from.Load())
	}
	k.idle()
}

// TestNoRoom has a guest that runs out of buffers again and again.
func TestNoRoom(t *testing.T) {
	ns := tcredirecttest.New(t)
	var mu sync.Mutex
	var sent, refused int
	full := false
	link := new(Link)
	*link = *New(Config{Card: cardFunc(func(parts ...[]byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if full {
			refused++
			return false
		}
		if sent++; sent%7 == 0 {
			full = true
			time.AfterFunc(200*time.Microsecond, func() {
				mu.Lock()
				full = false
				mu.Unlock()
				link.Room()
			})
		}
		return ns.Send(parts...)
	})})
	defer link.Close()
	ns.Receive(func(parts [][]byte) { link.Receive(parts) }, link.Flush)
	k := &kernel{T: t, ns: ns, link: link}
	k.bothWays("127.0.0.1:0", 32<<20)
	mu.Lock()
	if refused == 0 {
		t.Error("there was always room")
	}
	mu.Unlock()
	k.idle()
}

func TestResets(t *testing.T) {
	k := newKernel(t, Config{}, nil, nil)
	guestsEnd := make(chan error, 1)
	to := k.listen("127.0.0.1:0", func(c *net.TCPConn) {
		b := make([]byte, 1)
		io.ReadFull(c, b)
		if b[0] == 'r' {
			c.SetLinger(0)
			c.Close()
			return
		}
		_, err := c.Read(b)
		guestsEnd <- err
		c.Close()
	})
	c := k.dial(to)
	c.Write([]byte("r"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the guest's reset is %v", err)
	}
	if _, err := c.Write(nil); err == nil {
		t.Error("a reset connection takes more")
	}
	c.Close()
	c = k.dial(to)
	c.Write([]byte("c"))
	c.Close()
	if err := <-guestsEnd; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("our reset is %v to the guest", err)
	}
	k.idle()
}

// TestHalfClose ends the guest's direction first, and sends on.
func TestHalfClose(t *testing.T) {
	k := newKernel(t, Config{}, nil, nil)
	heard := make(chan string, 1)
	to := k.listen("[::1]:0", func(c *net.TCPConn) {
		c.Write([]byte("hello"))
		c.CloseWrite()
		b, _ := io.ReadAll(c)
		heard <- string(b)
		c.Close()
	})
	c := k.dial(to)
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	for range 3 {
		if _, err := c.Write([]byte("on and ")); err != nil {
			t.Fatal(err)
		}
	}
	// Closed at once: the written bytes still arrive.
	c.CloseWrite()
	c.Close()
	if got := <-heard; got != "on and on and on and " {
		t.Errorf("the guest heard %q", got)
	}
	k.idle()
}

// TestNobodyReads has each side stop reading. The other side waits, in bounded memory, and
// continues afterwards.
func TestNobodyReads(t *testing.T) {
	k := newKernel(t, Config{Buffer: 256 << 10}, nil, nil)
	release := make(chan struct{})
	to := k.listen("127.0.0.1:0", func(c *net.TCPConn) {
		<-release
		echo(c)
	})
	c := k.dial(to)
	c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	total := 0
	for {
		n, err := c.Write(chunk)
		total += n
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		if total > 64<<20 {
			t.Fatal("somebody holds all of it")
		}
	}
	c.mu.Lock()
	if n := c.nxt - c.una; n > uint32(c.room) {
		t.Errorf("%d bytes are under way, of %d", n, c.room)
	}
	c.mu.Unlock()
	close(release)
	// Nobody reads here, so the guest's echo fills all buffers and the guest stops too.
	time.Sleep(300 * time.Millisecond)
	c.mu.Lock()
	if c.buf.Len() > c.room {
		t.Errorf("%d bytes are held, of %d", c.buf.Len(), c.room)
	}
	c.mu.Unlock()
	c.CloseWrite()
	if n, err := io.Copy(io.Discard, c); n != int64(total) || err != nil {
		t.Errorf("%d bytes come back of %d: %v", n, total, err)
	}
	c.Close()
	k.idle()
}

// TestManyAtOnce uses 1,000 open connections at once.
func TestManyAtOnce(t *testing.T) {
	k := newKernel(t, Config{}, nil, nil)
	to := k.listen("0.0.0.0:0", echo)
	conns := make([]*Conn, 1000)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := k.link.Dial(ctx, to)
			if err != nil {
				t.Error(err)
				return
			}
			conns[i] = c
			want := fmt.Sprintf("connection %d", i)
			c.Write([]byte(want))
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
	k.idle()
}

// TestPortsComeAround makes more connections than there are ports. The guest ends them first,
// so it remembers them for a while.
func TestPortsComeAround(t *testing.T) {
	k := newKernel(t, Config{}, nil, nil)
	// On one of our own ports: it may not connect to itself.
	to := k.listen("127.0.0.1:62000", func(c *net.TCPConn) {
		c.Write([]byte("x"))
		c.Close()
	})
	for i := range LastPort - FirstPort + 300 {
		c := k.dial(to)
		if b, err := io.ReadAll(c); len(b) != 1 || err != nil {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
		c.CloseWrite()
		c.Close()
	}
	// And with sequence numbers that look old to the guest.
	k.link.mu.Lock()
	k.link.iss -= 1 << 30
	k.link.mu.Unlock()
	for i := range 20 {
		c := k.dial(to)
		if b, err := io.ReadAll(c); len(b) != 1 || err != nil {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
		c.CloseWrite()
		c.Close()
	}
	k.idle()
}

func BenchmarkKernel(b *testing.B) {
	k := &kernel{ns: tcredirecttest.New(b)}
	k.link = New(Config{Card: cardFunc(k.ns.Send)})
	defer k.link.Close()
	k.ns.Receive(func(parts [][]byte) { k.link.Receive(parts) }, k.link.Flush)
	var l net.Listener
	k.ns.Do(func() { l, _ = net.Listen("tcp", "127.0.0.1:0") })
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				what := make([]byte, 1)
				io.ReadFull(c, what)
				switch buf := make([]byte, 256<<10); what[0] {
				case 'u':
					io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, buf)
				case 'd':
					for {
						if _, err := c.Write(buf); err != nil {
							break
						}
					}
				case 'e':
					io.Copy(c, c)
				}
				c.Close()
			}()
		}
	}()
	to := l.Addr().(*net.TCPAddr).AddrPort()
	dial := func(what string) *Conn {
		c, err := k.link.Dial(context.Background(), to)
		if err != nil {
			b.Fatal(err)
		}
		c.Write([]byte(what))
		return c
	}
	buf := make([]byte, 2*maxSegment)
	b.Run("up", func(b *testing.B) {
		c := dial("u")
		defer c.Close()
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			c.Write(buf)
		}
	})
	b.Run("down", func(b *testing.B) {
		c := dial("d")
		defer c.Close()
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			io.ReadFull(c, buf)
		}
	})
	b.Run("trip", func(b *testing.B) {
		c := dial("e")
		defer c.Close()
		for b.Loop() {
			c.Write(buf[:1])
			c.Read(buf[:1])
		}
	})
	b.Run("connect", func(b *testing.B) {
		for b.Loop() {
			c := dial("e")
			c.Write(buf[:1])
			c.Read(buf[:1])
			c.CloseWrite()
			c.Read(buf[:1])
			c.Close()
		}
	})
}
