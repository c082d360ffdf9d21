package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// fakeGuest stands in for the VM. Its streams are unix sockets, which distinguish a close
// from a half-close as vsock does.
type fakeGuest struct {
	t *testing.T

	mu       sync.Mutex
	serve    map[string]func(*net.UnixConn) // by "NETWORK ADDRESS"
	asked    []Target
	listens  map[string]func(id uint64)
	arrivals map[uint64]*net.UnixConn
	refuse   error // error of Listen
}

func newFakeGuest(t *testing.T) *fakeGuest {
	return &fakeGuest{t: t, serve: map[string]func(*net.UnixConn){}, listens: map[string]func(uint64){}, arrivals: map[uint64]*net.UnixConn{}}
}

// on serves connections to an address of the guest.
func (g *fakeGuest) on(network, address string, serve func(*net.UnixConn)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serve[network+" "+address] = serve
}

func (g *fakeGuest) Connect(ctx context.Context, to Target) (Stream, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, to)
	serve := g.serve[to.Network+" "+to.Address]
	host, guest, err := streamPair()
	if err != nil {
		return Stream{}, err
	}
	if serve == nil {
		guest.Close()
		return Stream{host, func() ([]byte, error) { return nil, errors.New("connection refused") }}, nil
	}
	go serve(guest)
	return Stream{host, func() ([]byte, error) { return nil, nil }}, nil
}

func (g *fakeGuest) Listen(ctx context.Context, at Target, started func(), accepted func(uint64)) error {
	g.mu.Lock()
	refuse := g.refuse
	g.listens[at.Network+" "+at.Address] = accepted
	g.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	started()
	<-ctx.Done()
	return ctx.Err()
}

// arrive connects in the guest to an address where the host listens.
func (g *fakeGuest) arrive(network, address string) *net.UnixConn {
	g.t.Helper()
	host, guest, err := streamPair()
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	accepted := g.listens[network+" "+address]
	id := uint64(len(g.arrivals) + 1)
	g.arrivals[id] = host
	g.mu.Unlock()
	if accepted == nil {
		g.t.Fatalf("the host does not listen on %s %s", network, address)
	}
	accepted(id)
	return guest
}

func (g *fakeGuest) Accept(ctx context.Context, id uint64) (Stream, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stream{g.arrivals[id], func() ([]byte, error) { return nil, nil }}, nil
}

// streamPair returns the two ends of a stream.
func streamPair() (host, guest *net.UnixConn, err error) {
	dir, err := os.MkdirTemp("", "fwd")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	d, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	return c.(*net.UnixConn), d.(*net.UnixConn), nil
}

// echo sends back all bytes until their end.
func echo(c *net.UnixConn) {
	io.Copy(c, c)
	c.CloseWrite()
	c.Close()
}

var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// run runs a forwarder until the test ends.
func run(t *testing.T, cfg Config) *Forwarder {
	t.Helper()
	f := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the forwarder does not end")
		}
	})
	return f
}

func auto(Listener) []netip.Addr { return loopbacks }

// listener listens in the fake guest.
func listener(network, addr string) Listener {
	return Listener{Network: network, Addr: netip.MustParseAddrPort(addr), Distro: "debian-1", PID: 7, Process: "server"}
}

// await waits until ok accepts the ports.
func await(t *testing.T, f *Forwarder, what string, ok func([]Port) bool) []Port {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		ports, changed := f.Ports()
		if ok(ports) {
			return ports
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond): // counters change without a signal
		case <-end:
			t.Fatalf("never %s: %+v", what, ports)
		}
	}
}

// awaitStates waits for the states of all ports.
func awaitStates(t *testing.T, f *Forwarder, states ...string) []Port {
	t.Helper()
	return await(t, f, fmt.Sprint(states), func(ports []Port) bool {
		if len(ports) != len(states) {
			return false
		}
		for i, p := range ports {
			if p.State != states[i] {
				return false
			}
		}
		return true
	})
}

// freePort returns a port that is free for both protocols and families.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l6, err6 := net.Listen("tcp", fmt.Sprintf("[::1]:%d", port))
		u, erru := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		l.Close()
		if err6 == nil {
			l6.Close()
		}
		if erru == nil {
			u.Close()
		}
		if err6 == nil && erru == nil {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// talk checks that an address echoes.
func talk(t *testing.T, network, addr string) {
	t.Helper()
	c := dial(t, network, addr)
	io.WriteString(c, "hello")
	c.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Fatalf("%s: %q, %v", addr, b, err)
	}
}
