package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/network"
	"github.com/lsub/lsub/guest/guestv1"
)

// isolatedDistro is one of which nothing runs but its network: a loopback.
func isolatedDistro(t *testing.T, a *Agent, id string) *distro {
	t.Helper()
	d := &distro{
		a: a, spec: &guestv1.Distro{Id: id, Name: id, Isolated: true},
		networked: make(chan struct{}), ready: make(chan struct{}), gone: make(chan struct{}),
	}
	a.mu.Lock()
	a.distros[id] = d
	a.mu.Unlock()
	if err := d.openNetwork(); errors.Is(err, unix.EPERM) {
		t.Skipf("no network namespace can be made here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	close(d.ready)
	return d
}

func newTestAgent() *Agent {
	return &Agent{log: slog.New(slog.DiscardHandler), distros: map[string]*distro{}, changed: make(chan struct{})}
}

// serveWord answers each connection with a word.
func serveWord(l net.Listener, word string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, word)
		c.Close()
	}
}

// TestConnectIsolated connects to the same address in two distros and in the VM.
func TestConnectIsolated(t *testing.T) {
	a := newTestAgent()
	web, api := isolatedDistro(t, a, "web-1"), isolatedDistro(t, a, "api-1")
	shared := &distro{a: a, spec: &guestv1.Distro{Id: "plain-1"}, ready: web.ready}
	a.distros["plain-1"] = shared
	vm, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	go serveWord(vm, "vm")
	at := vm.Addr().String()
	for _, d := range []*distro{web, api} {
		l, err := inNetns(d.ownNetns(), func() (net.Listener, error) { return net.Listen("tcp", at) })
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go serveWord(l, d.spec.Id)
	}
	read := func(id string) string {
		conn, release, err := a.connect(&guestv1.Connect{Distro: id, Network: "tcp", Address: at})
		if err != nil {
			return err.Error()
		}
		defer release()
		defer conn.Close()
		b, err := io.ReadAll(conn.(io.Reader))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	for id, want := range map[string]string{"web-1": "web-1", "api-1": "api-1", "plain-1": "vm", "": "vm"} {
		if got := read(id); got != want {
			t.Errorf("in %q: %s, want %s", id, got, want)
		}
	}
	web.closeNetns()
	if got := read("web-1"); !strings.Contains(got, "does not run") {
		t.Errorf("in a distro whose network is gone: %s", got)
	}
	if _, _, err := a.connect(&guestv1.Connect{Distro: "web-1", Network: "udp", Address: at}); err == nil {
		t.Error("UDP reaches a distro whose network is gone")
	}
	// What makes no sense is refused, in a distro as in the VM.
	for _, to := range []*guestv1.Connect{{Network: "tcp", Address: "nowhere"}, {Network: "icmp", Address: at}, {Network: "unix", Address: "relative"}} {
		for _, to.Distro = range []string{"", "api-1"} {
			if _, _, err := a.connect(to); err == nil {
				t.Errorf("%v is taken", to)
			}
		}
	}
	if api.forwards != 0 || shared.forwards != 0 {
		t.Errorf("still in use: %d, %d", api.forwards, shared.forwards)
	}
	if namespaces, _ := a.namespaces(); len(namespaces) != 1 || namespaces[0].Distro != "api-1" || len(a.networks()) != 1 {
		t.Errorf("namespaces %v, networks %v", namespaces, a.networks())
	}
	api.closeNetns()
}

// TestListenIsolated takes connections for the host in a distro that comes and goes.
func TestListenIsolated(t *testing.T) {
	a := newTestAgent()
	ctx, cancel := context.WithCancel(t.Context())
	said, w := io.Pipe()
	ended := make(chan error)
	const at = "127.0.0.1:15432"
	go func() {
		ended <- a.listenFor(ctx, guest.NewWriter(w), &guestv1.Listen{Distro: "web-1", Network: "tcp", Address: at})
	}()
	r := guest.NewReader(said)
	for round := range 2 {
		d := isolatedDistro(t, a, "web-1")
		a.mu.Lock()
		a.notifyChange()
		a.mu.Unlock()
		var started guestv1.Started
		if err := r.Expect(guest.FrameStarted, &started); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			t.Error("the VM's network has the port, too")
		}
		c, err := inNetns(d.ownNetns(), func() (net.Conn, error) { return net.DialTimeout("tcp", at, 10*time.Second) })
		if err != nil {
			t.Fatal(err)
		}
		if kind, _, err := r.Next(); err != nil || kind != guest.FrameAccepted {
			t.Fatalf("round %d: frame %d, %v", round, kind, err)
		}
		c.Close()
		d.closeNetns()
		a.mu.Lock()
		delete(a.distros, "web-1")
		a.notifyChange()
		a.mu.Unlock()
		close(d.gone)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestAddresses gives each isolated distro that runs its own.
func TestAddresses(t *testing.T) {
	a := newTestAgent()
	a.cfg.Network = network.VM{Address: netip.MustParsePrefix("10.77.3.2/29"), Gateway: netip.MustParseAddr("10.77.3.1"), MTU: 1500}
	seen := map[netip.Addr]bool{}
	for i := range 4 {
		d := &distro{a: a, spec: &guestv1.Distro{Id: fmt.Sprint("d-", i), Isolated: true}}
		a.distros[d.spec.Id] = d
		addr, err := d.takeAddress()
		if i == 3 {
			if err == nil || !strings.Contains(err.Error(), "no address left: 10.77.3.0/29; the profile's network.subnet") {
				t.Errorf("of a full subnet: %v, %v", addr, err)
			}
			break
		}
		if err != nil || seen[addr] {
			t.Errorf("%v, %v", addr, err)
		}
		seen[addr] = true
	}
}
