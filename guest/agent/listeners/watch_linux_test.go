package listeners

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPolling watches without the kernel's events, as where it has none: what the
// test itself opens is seen, and is gone again. The test's control group is taken for
// one of a distro's.
func TestPolling(t *testing.T) {
	d, err := openDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	first, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	at := func(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }
	tcp, _, err := d.dump()
	if errors.Is(err, unix.ENOENT) {
		t.Skip("this kernel has no sock_diag for inet")
	}
	i := slices.IndexFunc(tcp, func(s socket) bool { return s.addr == at(first.Addr()) })
	if err != nil || i < 0 {
		t.Fatalf("%v in %+v: %v", first.Addr(), tcp, err)
	}
	if tcp[i].group == 0 {
		t.Skip("this kernel does not tell the control groups of sockets")
	}
	seen := make(chan []Listener, 100)
	w := &watcher{
		namespaces: func() ([]*Netns, <-chan struct{}) { return nil, nil }, owners: &owners{paths: map[uint64]string{tcp[i].group: "/" + groupsOfDistros + "/test/inside/x"}},
		log: slog.New(slog.DiscardHandler), changed: func(all []Listener) { seen <- all }, named: make(chan []Listener, 1),
	}
	ctx, cancel := context.WithCancel(t.Context())
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx, nil, tick.C) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	await := func(network string, addr net.Addr, there bool) {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case all := <-seen:
				if there == slices.ContainsFunc(all, func(l Listener) bool { return l.Network == network && l.Addr == at(addr) && l.Distro == "test" }) {
					return
				}
			case <-deadline:
				t.Fatalf("%s %v: never seen so that it is there: %v", network, addr, there)
			}
		}
	}
	await(TCP, first.Addr(), true)
	second, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	await(TCP, second.Addr(), true)
	third, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	await(UDP, third.LocalAddr(), true)
	second.Close()
	await(TCP, second.Addr(), false)
	third.Close()
	await(UDP, third.LocalAddr(), false)
}
