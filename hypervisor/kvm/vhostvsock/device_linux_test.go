package vhostvsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
)

func dialCtx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// pair returns both ends of a stream through a reflecting guest.
func pair(t testing.TB, g *fakeVM, l net.Listener) (dialed, accepted *stream) {
	t.Helper()
	got := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		got <- c
	}()
	c, err := g.d.Dial(dialCtx(t), reflectGuest)
	check(t, err)
	return c.(*stream), (<-got).(*stream)
}

func reflecting(t testing.TB, o fakeOptions) (*fakeVM, net.Listener) {
	o.onPacket = reflect
	g := newFake(t, o)
	l, err := g.d.Listen(reflectHost)
	check(t, err)
	return g, l
}

// TestNet runs the conformance tests that package net's own connections pass.
func TestNet(t *testing.T) {
	for name, o := range map[string]fakeOptions{
		"event idx": {}, "indirect": {indirect: true}, "plain": {noEventIdx: true},
		"small buffers": {cfg: Config{StreamBuffer: minStreamBuffer}, rxBuf: 256},
	} {
		t.Run(name, func(t *testing.T) {
			g, l := reflecting(t, o)
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				a, b := pair(t, g, l)
				return a, b, func() { a.Close(); b.Close() }, nil
			})
			waitNoStreams(t, g)
		})
	}
}

func waitNoStreams(t testing.TB, g *fakeVM) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(g.d.all()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d streams are left", len(g.d.all()))
		}
	}
}

func TestBulkBothWays(t *testing.T) {
	g, l := reflecting(t, fakeOptions{indirect: true})
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	a, b := pair(t, g, l)
	var wg sync.WaitGroup
	for _, dir := range [][2]*stream{{a, b}, {b, a}} {
		wg.Go(func() {
			if _, err := dir[0].ReadFrom(bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
			if err := dir[0].CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			var got bytes.Buffer
			if _, err := dir[1].WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
				t.Errorf("%d bytes of %d, %v", got.Len(), len(data), err)
			}
		})
	}
	wg.Wait()
	a.Close()
	b.Close()
	waitNoStreams(t, g)
}

// fickle takes some of its input at once, and the rest with Write. It fails after limit
// bytes.
type fickle struct {
	bytes.Buffer
	now, limit int
}

var errFickle = errors.New("no more")

func (f *fickle) WriteNow(p [][]byte) (int, error) {
	f.now++
	if f.Len() >= f.limit {
		return 0, errFickle
	}
	n := 0
	for i, b := range p {
		if i == f.now%3 || f.now%5 == 0 {
			break
		}
		if f.now%7 == 0 {
			b = b[:len(b)/2]
		}
		f.Write(b)
		if n += len(b); len(b) < len(p[i]) {
			break
		}
	}
	return n, nil
}

// TestDirect writes to a sink that takes bytes on the device's own goroutine. The bytes
// arrive unchanged and in order.
func TestDirect(t *testing.T) {
	g, l := reflecting(t, fakeOptions{})
	a, b := pair(t, g, l)
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%5000)
			if _, err := a.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = a.CloseWrite()
	}()
	f := &fickle{limit: len(data) + 1}
	if n, err := b.WriteTo(f); n != int64(len(data)) || err != nil || !bytes.Equal(f.Bytes(), data) || f.now == 0 {
		t.Errorf("%d bytes of %d in %d pieces, %v", n, len(data), f.now, err)
	}
	go func() { _, _ = b.Write(data) }()
	f = &fickle{limit: 1 << 20}
	if n, err := a.WriteTo(f); !errors.Is(err, errFickle) || n != int64(f.Len()) || !bytes.Equal(f.Bytes(), data[:n]) {
		t.Errorf("%d bytes, %v", n, err)
	}
	a.Close()
	b.Close()
	waitNoStreams(t, g)
}

func TestManyStreams(t *testing.T) {
	total, at := 10000, 200
	if testing.Short() {
		total = 1000
	}
	g, l := reflecting(t, fakeOptions{cfg: Config{MaxStreams: 50000, CloseTimeout: time.Minute}})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	var wg sync.WaitGroup
	for range at {
		wg.Go(func() {
			for range total / at {
				c, err := g.d.Dial(dialCtx(t), reflectGuest)
				if err != nil {
					t.Error(err)
					return
				}
				msg := []byte("hello " + c.LocalAddr().String())
				_, _ = c.Write(msg)
				_ = c.(*stream).CloseWrite()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, msg) {
					t.Errorf("%q, %v", got, err)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	waitNoStreams(t, g)
}

func TestHalfClose(t *testing.T) {
	g, l := reflecting(t, fakeOptions{})
	a, b := pair(t, g, l)
	defer a.Close()
	defer b.Close()
	check(t, a.CloseWrite())
	if n, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(n, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	_, err := b.Write([]byte("back"))
	check(t, err)
	check(t, b.CloseWrite())
	if got, err := io.ReadAll(a); err != nil || string(got) != "back" {
		t.Fatalf("%q, %v", got, err)
	}

	a, b = pair(t, g, l)
	defer a.Close()
	defer b.Close()
	check(t, a.CloseRead())
	for end := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(end); {
		_, err = b.Write(make([]byte, 1000))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
}

// TestCloseDelivers checks that closing right after writing loses nothing.
func TestCloseDelivers(t *testing.T) {
	g, l := reflecting(t, fakeOptions{})
	a, b := pair(t, g, l)
	data := bytes.Repeat([]byte("0123456789abcdef"), 40000)
	_, err := a.Write(data)
	check(t, err)
	check(t, a.Close())
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	b.Close()
	waitNoStreams(t, g)
}

// TestCreditExhaustion checks that a peer that does not read blocks only its own writer, and
// that the writer continues when the peer reads.
func TestCreditExhaustion(t *testing.T) {
	g, l := reflecting(t, fakeOptions{cfg: Config{StreamBuffer: 64 << 10}})
	a, b := pair(t, g, l)
	data := bytes.Repeat([]byte("x"), 1<<20)
	wrote := make(chan error, 1)
	go func() {
		_, err := a.Write(data)
		a.CloseWrite()
		wrote <- err
	}()
	for { // until its buffer is full
		b.mu.Lock()
		n := b.buf.Len()
		b.mu.Unlock()
		if n == 64<<10 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	c, d := pair(t, g, l)
	_, err := c.Write([]byte("others go on"))
	check(t, err)
	got := make([]byte, 12)
	_, err = io.ReadFull(d, got)
	check(t, err)
	select {
	case err := <-wrote:
		t.Fatal("written without credit", err)
	default:
	}
	all, err := io.ReadAll(b)
	if err != nil || len(all) != len(data) {
		t.Fatal(len(all), err)
	}
	check(t, <-wrote)
	for _, s := range []*stream{a, b, c, d} {
		s.Close()
	}
	waitNoStreams(t, g)
}

func TestDialErrors(t *testing.T) {
	g := newFake(t, fakeOptions{cfg: Config{MaxStreams: 2}, onPacket: func(g *fakeVM, h header, _ []byte) {
		if h.Op == opRequest && h.DstPort == 1 {
			g.send(packet(opRst, 1, h.SrcPort), nil)
		}
	}})
	if _, err := g.d.Dial(dialCtx(t), 1); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := g.d.Dial(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	waitNoStreams(t, g) // the guest was told
	result := make(chan error)
	go func() {
		_, err := g.d.Dial(context.Background(), 2)
		result <- err
	}()
	time.Sleep(10 * time.Millisecond)
	g.d.Close()
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := g.d.Dial(dialCtx(t), 1); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := g.d.Listen(1); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := New(Config{}).Dial(dialCtx(t), 1); err == nil {
		t.Fatal("CID 0 was taken")
	}
}

func TestListen(t *testing.T) {
	refused := make(chan header, 10)
	g := newFake(t, fakeOptions{cfg: Config{Backlog: 2}, onPacket: func(g *fakeVM, h header, _ []byte) {
		if h.Op == opRst {
			refused <- h
		}
	}})
	l, err := g.d.Listen(5)
	check(t, err)
	if _, err := g.d.Listen(5); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatal(err)
	}
	for i := range uint32(3) {
		g.send(packet(opRequest, 100+i, 5), nil)
	}
	if h := <-refused; h.DstPort != 102 || h.SrcPort != 5 {
		t.Fatal(&h)
	}
	c, err := l.Accept()
	check(t, err)
	if c.LocalAddr().String() != "2:5" || c.RemoteAddr().String() != "42:100" || c.RemoteAddr().Network() != "vsock" {
		t.Fatal(c.LocalAddr(), c.RemoteAddr())
	}
	check(t, l.Close())
	if h := <-refused; h.DstPort != 101 {
		t.Fatal(&h)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	g.send(packet(opRst, 100, 5), nil)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	c.Close()
}

// TestRst checks the answers to packets that belong to no stream.
func TestRst(t *testing.T) {
	got := make(chan header, 10)
	g := newFake(t, fakeOptions{onPacket: func(g *fakeVM, h header, _ []byte) { got <- h }})
	g.send(packet(opRst, 9, 9), nil) // no RST for an RST
	g.send(packet(opRW, 1, 2), []byte("data"))
	if h := <-got; h.Op != opRst || h.SrcPort != 2 || h.DstPort != 1 || h.DstCID != fakeCID {
		t.Fatal(&h)
	}
	seq := packet(opRequest, 3, 4)
	seq.Type = 2
	g.send(seq, nil)
	if h := <-got; h.Op != opRst || h.Type != 2 || h.DstPort != 3 {
		t.Fatal(&h)
	}
	g.send(packet(opRequest, 5, 6), nil) // nobody listens
	if h := <-got; h.Op != opRst || h.DstPort != 5 {
		t.Fatal(&h)
	}
	// More bytes than there is credit for.
	l, err := g.d.Listen(7)
	check(t, err)
	g.send(packet(opRequest, 8, 7), nil)
	if h := <-got; h.Op != opResponse {
		t.Fatal(&h)
	}
	c, err := l.Accept()
	check(t, err)
	defer c.Close()
	for range 17 {
		g.send(packet(opRW, 8, 7), make([]byte, maxPayload))
	}
	if h := <-got; h.Op != opRst || h.DstPort != 8 {
		t.Fatal(&h)
	}
}

// TestRejectFlood checks that a guest that only sends and never takes answers is no longer
// served, and is served again when it takes them.
func TestRejectFlood(t *testing.T) {
	var mu sync.Mutex
	n := 0
	g := newFake(t, fakeOptions{onPacket: func(g *fakeVM, h header, _ []byte) { mu.Lock(); n++; mu.Unlock() }})
	g.hold.Store(true)
	const flood = 2000
	sent := make(chan struct{})
	go func() {
		for i := range uint32(flood) {
			g.send(packet(opRW, i, 2), nil)
		}
		close(sent)
	}()
	select {
	case <-sent:
		t.Fatal("all was taken")
	case <-time.After(100 * time.Millisecond):
	}
	g.hold.Store(false)
	vhosttest.Signal(g.rx.Call)
	<-sent
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		done := n == flood
		mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d answers", n)
		}
	}
}
