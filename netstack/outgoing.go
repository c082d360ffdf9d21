package netstack

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// addrEvery is the time between two checks of the host's addresses. Each system reports
// changes in its own way; a check takes some 50 µs, and there is none while no connection
// leads to another machine.
const addrEvery = 5 * time.Second

// outgoing holds the guest's connections to other machines. If the host loses a connection's
// local address, with its network, the connection hangs until TCP gives up, a quarter of an
// hour later. So it is cut if the address is still missing at the second check. After sleep,
// a card gets its address back before that.
type outgoing struct {
	every time.Duration
	addrs func() ([]net.Addr, error) // the host's addresses

	mu      sync.Mutex
	conns   map[*outConn]struct{}
	looking bool
}

// outConn is one connection.
type outConn struct {
	from   netip.Addr // the host's address
	missed bool       // at the last check
	cut    func()
}

func newOutgoing() *outgoing {
	return &outgoing{every: addrEvery, addrs: net.InterfaceAddrs, conns: map[*outConn]struct{}{}}
}

// add registers a connection until remove is called. When the host loses the local address,
// cut is called.
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

// look checks the addresses as long as there are connections.
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
