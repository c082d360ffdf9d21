package forward

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestTaken(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	g.on(TCP, at, echo)
	other, err := net.Listen(TCP, at)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	only4 := func(Listener) []netip.Addr { return loopbacks[:1] }
	f := run(t, Config{Guest: g, Auto: only4})
	f.SetListeners([]Listener{listener(TCP, at)})
	p := awaitStates(t, f, StateFailed)[0]
	if !strings.Contains(p.Reason, "taken by another program") || p.Host[0] != at {
		t.Errorf("%+v", p)
	}
	// The program of the host may come back, so the distro does not get its port then.
	other.Close()
	for range 3 {
		f.SetListeners([]Listener{listener(TCP, at)})
		awaitStates(t, f, StateFailed)
		again, err := net.Listen(TCP, at)
		if err != nil {
			t.Fatalf("the program comes back: %v", err)
		}
		again.Close()
	}
	// It does when its program listens anew: another process, or after it did not listen.
	anew := listener(TCP, at)
	anew.PID++
	f.SetListeners([]Listener{anew})
	if p := awaitStates(t, f, StateOpen)[0]; p.Reason != "" {
		t.Errorf("%+v", p)
	}
	talk(t, TCP, at)

	// Another forwarder reports that the port is taken, or uses the next one.
	second := run(t, Config{Guest: g, Auto: only4})
	second.SetListeners([]Listener{listener(TCP, at)})
	awaitStates(t, second, StateFailed)
	third := run(t, Config{Guest: g, Auto: auto, NextFree: true})
	third.SetListeners([]Listener{listener(TCP, at)})
	p = awaitStates(t, third, StateOpen)[0] // on both addresses, although ::1 was free
	if p.Host[0] == at || len(p.Host) != 2 || p.Host[1] == strings.Replace(at, "127.0.0.1", "[::1]", 1) || !strings.Contains(p.Reason, at+" is taken") {
		t.Errorf("%+v", p)
	}
	talk(t, TCP, p.Host[0])
}

// TestTakenByHalf has a program of the host on one address of localhost. The guest does not
// get the other one, by which clients of "localhost" may come.
func TestTakenByHalf(t *testing.T) {
	for i, half := range loopbacks {
		other, err := net.Listen(TCP, netip.AddrPortFrom(half, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		n := netip.MustParseAddrPort(other.Addr().String()).Port()
		g := newFakeGuest(t)
		at := fmt.Sprintf("0.0.0.0:%d", n)
		g.on(TCP, fmt.Sprintf("127.0.0.1:%d", n), echo)
		free := netip.AddrPortFrom(loopbacks[1-i], n).String()
		rule := Rule{Network: TCP, Host: []netip.AddrPort{netip.AddrPortFrom(loopbacks[0], n), netip.AddrPortFrom(loopbacks[1], n)},
			Guest: Target{Network: TCP, Address: fmt.Sprintf(":%d", n)}}
		for _, cfg := range []Config{{Guest: g, Auto: auto}, {Guest: g, Rules: []Rule{rule}}} {
			f := run(t, cfg)
			f.SetListeners([]Listener{listener(TCP, at)})
			p := awaitStates(t, f, StateFailed)[0]
			if !strings.Contains(p.Reason, netip.AddrPortFrom(half, n).String()+" is taken") {
				t.Errorf("%+v", p)
			}
			if c, err := net.Dial(TCP, free); err == nil {
				c.Close()
				t.Errorf("%s answers", free)
			}
		}
	}
}

// TestTakenByConnection has a connection of the host use the port's number: the port opens
// as soon as that is over.
func TestTakenByConnection(t *testing.T) {
	server, err := net.Listen(TCP, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := net.Dial(TCP, server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := c.LocalAddr().String()
	g := newFakeGuest(t)
	g.on(TCP, at, echo)
	f := run(t, Config{Guest: g, Auto: func(Listener) []netip.Addr { return loopbacks[:1] }})
	f.SetListeners([]Listener{listener(TCP, at)})
	awaitStates(t, f, StateFailed)
	c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
	c.Close()
	awaitStates(t, f, StateOpen)
	talk(t, TCP, at)
}
