package netstack

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// addrEvery is the time between two looks at the host's addresses. Each system
// tells of changes in a way of its own; a look takes some 50 µs, and none is taken
// while no connection leads to another machine.
const addrEvery = 5 * time.Second

// outgoing are the guest's connections to other machines. One whose address the
// host has lost, with its network, hangs until TCP gives up, a quarter of an hour
// later. It is cut where the address is still missing at the second look: a card
// that only comes back from sleep gets it again before.
type outgoing struct {
	every time.Duration
	addrs func() ([]net.Addr, error) // of the host

	mu      sync.Mutex
	conns   map[*outConn]struct{}
	looking bool
}

// outConn is one of them.
type outConn struct {
	from   netip.Addr // of the host
	missed bool       // at the last look
	cut    func()
}

func newOutgoing() *outgoing {
	return &outgoing{every: addrEvery, addrs: net.InterfaceAddrs, conns: map[*outConn]struct{}{}}
}

// add has a connection cut when the host has no longer the address that it goes
// out from, until remove is called.
func (o *outgoing) add(local net.Addr, cut func()) (remove func()) {
	at, err := netip.ParseAddrPort(local.String())
	if err != nil || at.Addr().IsLoopback() {
		return func() {}
	}
	c := &outConn{from: at.Addr().Unmap().WithZone(""), cut: cut}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conns[c] = struct{}{}
	if !o.looking {
		o.looking = true
		go o.look()
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.conns, c)
	}
}

// look looks at the addresses for as long as there are connections.
func (o *outgoing) look() {
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for range tick.C {
		there := map[netip.Addr]bool{}
		addrs, err := o.addrs()
		for _, a := range addrs {
			if p, perr := netip.ParsePrefix(a.String()); perr == nil {
				there[p.Addr().Unmap()] = true
			}
		}
		o.mu.Lock()
		var lost []*outConn
		for c := range o.conns {
			gone := err == nil && !there[c.from]
			if gone && c.missed {
				lost = append(lost, c)
				delete(o.conns, c)
			}
			c.missed = gone
		}
		o.looking = len(o.conns) > 0
		more := o.looking
		o.mu.Unlock()
		for _, c := range lost {
			c.cut()
		}
		if !more {
			return
		}
	}
}
