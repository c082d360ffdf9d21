package forward

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestAutomatic(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	f := run(t, Config{Guest: g, Auto: auto})
	v4, v6 := fmt.Sprintf("127.0.0.1:%d", n), fmt.Sprintf("[::1]:%d", n)
	for _, c := range []struct{ guest, for4, for6 string }{
		{"127.0.0.1", v4, v4}, {"0.0.0.0", v4, v4}, {"[::]", v4, v6}, {"[::1]", v6, v6},
	} {
		g.serve = map[string]func(*net.UnixConn){}
		g.on(TCP, v4, echo)
		g.on(TCP, v6, echo)
		g.asked = nil
		f.SetListeners([]Listener{listener(TCP, fmt.Sprintf("%s:%d", c.guest, n))})
		ports := awaitStates(t, f, StateOpen)
		if p := ports[0]; p.Process != "server" || p.Distro != "debian-1" || len(p.Host) != 2 || p.Host[0] != v4 || p.Host[1] != v6 {
			t.Errorf("%+v", p)
		}
		talk(t, TCP, v4)
		talk(t, TCP, v6)
		want := []Target{
			{Distro: "debian-1", Network: TCP, Address: c.for4, Shared: true},
			{Distro: "debian-1", Network: TCP, Address: c.for6, Shared: true},
		}
		if len(g.asked) != 2 || g.asked[0] != want[0] || g.asked[1] != want[1] {
			t.Errorf("%s: connected to %v, want %v", c.guest, g.asked, want)
		}
		await(t, f, "both ended", func(p []Port) bool { return p[0].Active == 0 })
		if p, _ := f.Ports(); p[0].Connections != 2 || p[0].ToGuest != 10 || p[0].ToHost != 10 || p[0].Failed != 0 {
			t.Errorf("counters: %+v", p[0])
		}
		f.SetListeners(nil)
		awaitStates(t, f)
		if c, err := net.Dial(TCP, v4); err == nil {
			c.Close()
			t.Error("the port is open after its end")
		}
	}
	// Other addresses of the guest than localhost are not forwarded.
	f.SetListeners([]Listener{listener(TCP, fmt.Sprintf("192.168.127.2:%d", n)), listener(TCP, fmt.Sprintf("127.0.0.53:%d", n+1))})
	time.Sleep(20 * time.Millisecond)
	awaitStates(t, f)
}

// TestConnectionsStay: a connection outlives its port, and ends with the forwarder.
func TestConnectionsStay(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	g.on(TCP, at, echo)
	f := run(t, Config{Guest: g, Auto: auto})
	f.SetListeners([]Listener{listener(TCP, at)})
	awaitStates(t, f, StateOpen)
	c := dial(t, TCP, at)
	f.SetListeners(nil)
	awaitStates(t, f)
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("the connection ended with its port: %v", err)
	}
}

// wantReset checks that a connection is reset, at once or once established.
func wantReset(t *testing.T, at string) {
	t.Helper()
	c, err := net.Dial(TCP, at)
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = io.ReadAll(c)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: %v, not a reset", at, err)
	}
}

func TestResets(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	f := run(t, Config{Guest: g, Auto: auto})
	f.SetListeners([]Listener{listener(TCP, at)})
	awaitStates(t, f, StateOpen)

	t.Run("nobody listens in the guest", func(t *testing.T) {
		wantReset(t, at)
		await(t, f, "counted as failed", func(p []Port) bool { return p[0].Failed == 1 && p[0].Active == 0 })
	})
	t.Run("by the guest", func(t *testing.T) {
		g.on(TCP, at, func(c *net.UnixConn) {
			io.WriteString(c, "last words")
			c.Close() // without a half-close
		})
		wantReset(t, at)
	})
	t.Run("by the client", func(t *testing.T) {
		seen := make(chan error, 1)
		g.on(TCP, at, func(c *net.UnixConn) {
			io.ReadFull(c, make([]byte, 1))
			io.Copy(io.Discard, c)
			_, err := c.Write(nil) // fails after a close, not after a half-close
			seen <- err
			c.Close()
		})
		c := dial(t, TCP, at)
		io.WriteString(c, "x")
		time.Sleep(10 * time.Millisecond)
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		if err := <-seen; err == nil {
			t.Error("the guest saw a half-close, not a reset")
		}
	})
	t.Run("half-close", func(t *testing.T) {
		seen := make(chan error, 1)
		g.on(TCP, at, func(c *net.UnixConn) {
			io.Copy(io.Discard, c)
			_, err := c.Write([]byte("answer"))
			seen <- err
			c.CloseWrite()
			c.Close()
		})
		c := dial(t, TCP, at)
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "answer" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		if err := <-seen; err != nil {
			t.Errorf("the guest: %v", err)
		}
	})
	await(t, f, "all ended", func(p []Port) bool { return p[0].Active == 0 })
}

// TestBothWays moves much data both ways at once.
func TestBothWays(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	const size = 64 << 20
	sum := func(r io.Reader) []byte {
		h := sha256.New()
		io.Copy(h, r)
		return h.Sum(nil)
	}
	source := func(seed byte) io.Reader {
		return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
	}
	g.on(TCP, at, func(c *net.UnixConn) {
		var wg sync.WaitGroup
		wg.Go(func() {
			if !bytes.Equal(sum(c), sum(source(1))) {
				t.Error("bytes have changed on their way to the guest")
			}
		})
		io.Copy(c, source(2))
		c.CloseWrite()
		wg.Wait()
		c.Close()
	})
	f := run(t, Config{Guest: g, Auto: auto})
	f.SetListeners([]Listener{listener(TCP, at)})
	awaitStates(t, f, StateOpen)
	c := dial(t, TCP, at)
	c.SetDeadline(time.Now().Add(60 * time.Second))
	go func() {
		io.Copy(c, source(1))
		c.(*net.TCPConn).CloseWrite()
	}()
	if !bytes.Equal(sum(c), sum(source(2))) {
		t.Error("bytes have changed on their way to the host")
	}
	ports := await(t, f, "ended", func(p []Port) bool { return p[0].Active == 0 })
	if p := ports[0]; p.ToGuest != size || p.ToHost != size {
		t.Errorf("counters: %+v", p)
	}
}

func TestRules(t *testing.T) {
	g := newFakeGuest(t)
	host, guestPort := freePort(t), freePort(t)
	target := fmt.Sprintf("127.0.0.1:%d", guestPort)
	g.on(TCP, target, echo)
	rule := Rule{Network: TCP, Host: []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", host))},
		Guest: Target{Distro: "debian", Network: TCP, Address: fmt.Sprintf(":%d", guestPort)}}
	f := run(t, Config{Guest: g, Auto: auto, Rules: []Rule{rule}, DistroID: func(name string) string { return name + "-1" }})
	p := awaitStates(t, f, StateWaiting)[0]
	if p.Kind != KindRule || p.Host[0] != rule.Host[0].String() {
		t.Errorf("%+v", p)
	}
	// Another distro's listener is forwarded automatically, this one's only by the rule.
	other := listener(TCP, fmt.Sprintf("0.0.0.0:%d", freePort(t)))
	f.SetListeners([]Listener{listener(TCP, "0.0.0.0:"+fmt.Sprint(guestPort)), other})
	await(t, f, "two open", func(p []Port) bool {
		return len(p) == 2 && p[0].State == StateOpen && p[1].State == StateOpen
	})
	talk(t, TCP, rule.Host[0].String())
	if g.asked[0] != (Target{Distro: "debian-1", Network: TCP, Address: target, Shared: true}) {
		t.Errorf("connected to %v", g.asked[0])
	}
	if c, err := net.Dial(TCP, target); err == nil {
		c.Close()
		t.Error("the rule's port of the guest is forwarded by itself too")
	}
}

func TestSockets(t *testing.T) {
	g := newFakeGuest(t)
	g.on(Unix, "/run/docker.sock", echo)
	path := filepath.Join(t.TempDir(), "docker.sock")
	stale, err := net.ListenUnix(Unix, &net.UnixAddr{Name: path, Net: Unix})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close() // as after a supervisor that was killed
	rule := Rule{Network: Unix, Path: path, Guest: Target{Distro: "debian-1", Network: Unix, Address: "/run/docker.sock"}}
	f := run(t, Config{Guest: g, Rules: []Rule{rule}})
	p := awaitStates(t, f, StateOpen)[0]
	if p.Kind != KindSocket || p.Host[0] != path || p.Guest != "/run/docker.sock" {
		t.Errorf("%+v", p)
	}
	talk(t, Unix, path)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", fi.Mode(), err)
	}
	second := run(t, Config{Guest: g, Rules: []Rule{rule}})
	if p := awaitStates(t, second, StateFailed)[0]; !strings.Contains(p.Reason, "served by another program") {
		t.Errorf("%+v", p)
	}
	talk(t, Unix, path)
	// A file that is not a socket is left alone.
	rule.Path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(rule.Path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := run(t, Config{Guest: g, Rules: []Rule{rule}})
	if p := awaitStates(t, third, StateFailed)[0]; p.Reason != rule.Path+" is there already, and is no socket" {
		t.Errorf("%+v", p)
	}
	if b, err := os.ReadFile(rule.Path); string(b) != "kept" {
		t.Errorf("the file in the way has %q, %v", b, err)
	}
}

func TestReverse(t *testing.T) {
	g := newFakeGuest(t)
	server, err := net.Listen(TCP, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	at := Target{Distro: "", Network: TCP, Address: "127.0.0.1:5432"}
	f := run(t, Config{Guest: g, Rules: []Rule{{Network: TCP, Reverse: true, Dial: server.Addr().String(), Guest: at}}})
	p := awaitStates(t, f, StateOpen)[0]
	if p.Kind != KindReverse || p.Host[0] != server.Addr().String() {
		t.Errorf("%+v", p)
	}
	c := g.arrive(TCP, at.Address)
	io.WriteString(c, "hello")
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	c.Close()
	server.Close() // nobody listens there any more: a reset
	c = g.arrive(TCP, at.Address)
	io.ReadAll(c)
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a connection to nobody is open")
	}
	await(t, f, "one failed", func(p []Port) bool { return p[0].Connections == 2 && p[0].Failed == 1 && p[0].Active == 0 })
}

// TestReverseLimit has a guest begin more connections than the limit.
func TestReverseLimit(t *testing.T) {
	g := newFakeGuest(t)
	l, err := net.Listen(TCP, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it accepts connections, and sends nothing
	var log lockedBuffer
	f := run(t, Config{Guest: g, Limits: Limits{Reverse: 3}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Rules: []Rule{{Network: TCP, Reverse: true, Dial: l.Addr().String(), Guest: Target{Distro: "", Network: TCP, Address: "127.0.0.1:80"}}}})
	awaitStates(t, f, StateOpen)
	for range 5 {
		defer g.arrive(TCP, "127.0.0.1:80").Close()
	}
	await(t, f, "two refused", func(p []Port) bool { return p[0].Active == 3 && p[0].Failed == 2 })
	if n := strings.Count(log.String(), "a connection of the guest is refused"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

func TestReverseFails(t *testing.T) {
	g := newFakeGuest(t)
	g.refuse = errors.New("address already in use")
	f := run(t, Config{Guest: g, Rules: []Rule{{Network: TCP, Reverse: true, Dial: "127.0.0.1:1", Guest: Target{Distro: "", Network: TCP, Address: "127.0.0.1:80"}}}})
	if p := awaitStates(t, f, StateFailed)[0]; p.Reason != "address already in use" {
		t.Errorf("%+v", p)
	}
	g.mu.Lock()
	g.refuse = nil
	g.mu.Unlock()
	awaitStates(t, f, StateOpen) // it retries
}

// TestReverseLater installs the distro of a rule while the forwarder runs.
func TestReverseLater(t *testing.T) {
	g := newFakeGuest(t)
	var id atomic.Value
	id.Store("")
	at := Target{Distro: "debian", Network: Unix, Address: "/run/agent.sock"}
	f := run(t, Config{Guest: g, DistroID: func(string) string { return id.Load().(string) },
		Rules: []Rule{{Network: Unix, Reverse: true, Path: "/nowhere", Guest: at}}})
	await(t, f, "waiting for the distro", func(p []Port) bool {
		return len(p) == 1 && p[0].State == StateWaiting && strings.Contains(p[0].Reason, "no distro debian")
	})
	id.Store("debian-1")
	if p := awaitStates(t, f, StateOpen)[0]; p.Reason != "" || p.Guest != at.Address {
		t.Errorf("%+v", p)
	}
}

// TestMany opens and closes 500 ports at once.
func TestMany(t *testing.T) {
	g := newFakeGuest(t)
	f := run(t, Config{Guest: g, Auto: func(Listener) []netip.Addr { return loopbacks[:1] }})
	first := 20000 + rand.IntN(10000)
	var all []Listener
	for i := range 500 {
		all = append(all, listener(TCP, fmt.Sprintf("127.0.0.1:%d", first+i)))
	}
	start := time.Now()
	f.SetListeners(all)
	await(t, f, "500", func(p []Port) bool { return len(p) == 500 })
	opened := time.Since(start)
	f.SetListeners(nil)
	awaitStates(t, f)
	t.Logf("opened in %v, closed in %v", opened, time.Since(start)-opened)
}

func TestLimits(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	g.on(TCP, at, echo)
	g.on(UDP, at, echo)
	var log lockedBuffer
	f := run(t, Config{Guest: g, Auto: auto, Limits: Limits{Ports: 2, Connections: 3, Flows: 2}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	f.SetListeners([]Listener{listener(TCP, at), listener(UDP, at), listener(TCP, fmt.Sprintf("127.0.0.1:%d", freePort(t)))})
	await(t, f, "two", func(p []Port) bool { return len(p) == 2 })
	if !strings.Contains(log.String(), "more ports than are forwarded") {
		t.Errorf("no word of the limit of ports:\n%s", log.String())
	}
	// The lowest two are open; they may not include both of n.
	f.SetListeners([]Listener{listener(TCP, at), listener(UDP, at)})
	awaitStates(t, f, StateOpen, StateOpen)
	for range 3 {
		c := dial(t, TCP, at)
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		wantReset(t, at)
	}
	for range 4 {
		c := dial(t, UDP, at)
		io.WriteString(c, "x")
	}
	await(t, f, "flows bounded", func(p []Port) bool { return p[1].Active == 2 && p[1].Failed == 2 })
	text := log.String()
	if strings.Count(text, "a connection is refused: too many are open") != 1 || strings.Count(text, "UDP packets are dropped") != 1 {
		t.Errorf("each limit is logged once in a while:\n%s", text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestEnd: nothing is left at the end, however much is open.
func TestEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	mute := func(c *net.UnixConn) { // never reads, never ends
		<-make(chan struct{})
		runtime.KeepAlive(c) // else the garbage collector closes it
	}
	g.on(TCP, at, mute)
	g.on(UDP, at, mute)
	f := New(Config{Guest: g, Auto: auto})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	f.SetListeners([]Listener{listener(TCP, at), listener(UDP, at)})
	awaitStates(t, f, StateOpen, StateOpen)
	for range 10 {
		c := dial(t, TCP, at)
		c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		for { // until all buffers on the path are full
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		io.WriteString(dial(t, UDP, at), "x")
	}
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the forwarder does not end")
	}
	if n := runtime.NumGoroutine(); n > before+25 { // the fake's own may remain
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// TestRuleOfAnother: a rule does not apply to a port that another distro has in the shared
// network.
func TestRuleOfAnother(t *testing.T) {
	f := New(Config{Rules: []Rule{{
		Network: TCP, Host: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080")},
		Guest: Target{Distro: "web-1", Network: TCP, Address: ":80"},
	}}})
	f.listeners = []Listener{{Network: TCP, Addr: netip.MustParseAddrPort("0.0.0.0:80"), Distro: "api-1"}}
	if p := f.plans()[0]; p.v4.Shared || p.v6.Shared {
		t.Errorf("the rule leads to %+v and %+v", p.v4, p.v6)
	}
	f.listeners[0].Distro = "web-1"
	if p := f.plans()[0]; !p.v4.Shared || !p.v6.Shared {
		t.Errorf("the rule leads to %+v and %+v", p.v4, p.v6)
	}
}

// TestIsolated has two distros listen on the same port, each in its own network, beside the
// shared network.
func TestIsolated(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	g.on(TCP, at, echo)
	g.on(TCP, fmt.Sprintf("[::1]:%d", n), echo)
	own := func(distro, addr string) Listener {
		return Listener{Network: TCP, Addr: netip.MustParseAddrPort(addr), Distro: distro, Isolated: true}
	}
	shared := listener(TCP, fmt.Sprintf("[::1]:%d", n))
	web := own("web-1", at)
	rule := freePort(t)
	cfg := Config{Guest: g, Auto: auto, NextFree: true, Rules: []Rule{{
		Network: TCP, Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(rule))},
		Guest: Target{Distro: "rule-1", Network: TCP, Address: fmt.Sprintf(":%d", n)},
	}}}
	f := run(t, cfg)
	f.SetListeners([]Listener{web})
	await(t, f, "the first has the port", func(p []Port) bool { return len(p) == 2 && p[0].State == StateOpen })
	f.SetListeners([]Listener{shared, own("rule-1", at), own("api-1", at), web})
	all := await(t, f, "all open", func(p []Port) bool {
		return len(p) == 4 && p[0].State == StateOpen && p[1].State == StateOpen && p[2].State == StateOpen && p[3].State == StateOpen
	})
	hosts := map[string]string{}
	for _, p := range all {
		hosts[p.Distro] = p.Host[0]
	}
	if hosts["web-1"] != at || hosts["rule-1"] != fmt.Sprintf("127.0.0.1:%d", rule) || hosts["api-1"] == at || hosts["debian-1"] == at {
		t.Fatalf("open at %v", hosts)
	}
	for distro, host := range hosts {
		g.mu.Lock()
		g.asked = nil
		g.mu.Unlock()
		talk(t, TCP, host)
		want := Target{Distro: distro, Network: TCP, Address: at}
		if distro == "debian-1" { // whose socket takes no IPv4, unlike those of the others
			want.Address, want.Shared = fmt.Sprintf("[::1]:%d", n), true
		}
		g.mu.Lock()
		if len(g.asked) != 1 || g.asked[0] != want {
			t.Errorf("%s: connected to %v, want %v", distro, g.asked, want)
		}
		g.mu.Unlock()
	}
	f.SetListeners([]Listener{own("api-1", at)})
	await(t, f, "one is left, and the rule", func(p []Port) bool { return len(p) == 2 })
}
