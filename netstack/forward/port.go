package forward

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// port is a port of the host, open or not.
type port struct {
	f      *Forwarder
	plan   plan // guarded by Forwarder.mu, like the fields below
	open   []opened
	wanted []netip.AddrPort // not open yet
	// settled: the search for another port is over.
	settled bool
	state   string
	reason  string
	since   time.Time
	owner   string // who uses the taken address, if known
	asked   time.Time

	target4, target6 atomic.Pointer[Target] // where the port's connections go
	stats            stats
}

// opened is a listener on the host.
type opened struct {
	addr string
	io.Closer
}

// stats counts a port's connections and bytes.
type stats struct {
	active, connections, failed, toGuest, toHost atomic.Int64
}

// reconcile opens the ports that should be open and closes the others. It returns whether to
// retry later.
func (f *Forwarder) reconcile(ctx context.Context) (retry bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	plans := f.plans()
	due := map[portKey]bool{}
	for _, p := range plans {
		due[p.key] = true
	}
	changed := false
	for key, p := range f.ports {
		if !due[key] && key.kind != KindReverse {
			p.close()
			delete(f.ports, key)
			changed = true
		}
	}
	for _, pl := range plans {
		p := f.ports[pl.key]
		if p == nil {
			p = &port{f: f, since: time.Now(), wanted: pl.hosts}
			f.ports[pl.key] = p
			changed = true
		}
		changed = p.update(ctx, pl) || changed
		retry = retry || p.state == StateFailed || len(p.wanted) > 0
	}
	if changed {
		f.tellChange()
	}
	return retry
}

// update applies the plan to the port. It returns whether users see a change.
func (p *port) update(ctx context.Context, pl plan) (changed bool) {
	before, state, reason := p.plan, p.state, p.reason
	p.plan = pl
	p.target4.Store(&pl.v4)
	p.target6.Store(&pl.v6)
	if pl.path != "" {
		p.openSocket(ctx)
	} else {
		p.openAddrs(ctx)
	}
	switch {
	case len(p.open) == 0:
		p.state = StateFailed
	case pl.heard == nil && pl.path == "":
		p.state = StateWaiting
	default:
		p.state = StateOpen
	}
	if p.reason != reason && p.reason != "" {
		p.f.log.Warn("a port is not forwarded as asked", "network", pl.key.network, "guest", pl.guest, "why", p.reason)
	}
	return state != p.state || reason != p.reason || before.guest != pl.guest || !sameListener(before.heard, pl.heard)
}

func sameListener(a, b *Listener) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// openAddrs opens the addresses that are still wanted.
func (p *port) openAddrs(ctx context.Context) {
	if len(p.wanted) == 0 {
		return
	}
	var left []netip.AddrPort
	var failure error
	for _, at := range p.wanted {
		o, err := p.listen(ctx, at)
		switch {
		case err == nil:
			p.open = append(p.open, o)
		case errors.Is(err, syscall.EADDRNOTAVAIL) && at.Addr() == netip.IPv6Loopback() && len(p.plan.hosts) > 1:
			// A host without IPv6.
		default:
			left = append(left, at)
			failure = cmp.Or(failure, err)
		}
	}
	if p.wanted, p.reason = left, ""; failure == nil {
		return
	}
	p.reason = p.inWords(left[0], failure)
	if !p.f.cfg.NextFree || p.plan.key.kind != KindAuto || p.settled {
		return
	}
	p.settled = true // a later change would surprise the users of the open addresses
	if all := p.listenNext(ctx); all != nil {
		p.close()
		p.open, p.wanted = all, nil
	}
}

// maxTries is how many ports are tried instead of a taken one.
const maxTries = 200

// listenNext opens the next free port on all addresses of the plan. It searches above 1023,
// which needs no privileges, beginning with 8080 for 80 and 8443 for 443.
func (p *port) listenNext(ctx context.Context) []opened {
	n := int(p.plan.hosts[0].Port())
	if n < 1024 {
		n += 8000 - 1
	}
	for range maxTries {
		if n++; n > 65535 {
			n = 1024
		}
		if all := p.listenAll(ctx, uint16(n)); all != nil {
			return all
		}
	}
	return nil
}

func (p *port) listenAll(ctx context.Context, n uint16) []opened {
	var all []opened
	for _, at := range p.plan.hosts {
		o, err := p.listen(ctx, netip.AddrPortFrom(at.Addr(), n))
		if err == nil {
			all = append(all, o)
			continue
		}
		if len(all) > 0 && errors.Is(err, syscall.EADDRNOTAVAIL) {
			continue // a host without IPv6
		}
		for _, o := range all {
			o.Close()
		}
		return nil
	}
	return all
}

// inWords says why an address could not be opened. The caller holds f.mu.
func (p *port) inWords(at netip.AddrPort, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		for _, other := range p.f.ports {
			for _, o := range other.open {
				if o.addr == at.String() {
					return at.String() + " is forwarded to " + other.plan.guest + " of another distro or by another rule"
				}
			}
		}
		p.identify(at)
		return takenBy(at, p.owner)
	case errors.Is(err, fs.ErrPermission):
		return at.String() + " is not for this user to open (on Linux, the setting net.ipv4.ip_unprivileged_port_start says which ports are)"
	}
	return err.Error()
}

// listen opens one address.
func (p *port) listen(ctx context.Context, at netip.AddrPort) (opened, error) {
	if p.plan.key.network == UDP {
		return p.listenUDP(at)
	}
	return p.listenTCP(ctx, at)
}

// close closes the port; its connections stay. The caller holds f.mu.
func (p *port) close() {
	for _, o := range p.open {
		o.Close()
	}
	p.open = nil
}

func (f *Forwarder) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, p := range f.ports {
		p.close()
		delete(f.ports, key)
	}
	f.tellChange()
}

// list returns the ports, sorted. The caller holds f.mu.
func (f *Forwarder) list() []Port {
	all := make([]Port, 0, len(f.ports))
	for key, p := range f.ports {
		info := Port{
			Kind: key.kind, Network: key.network, Distro: p.plan.v4.Distro, Guest: p.plan.guest,
			State: p.state, Reason: p.reason, Opened: p.since,
			Active: p.stats.active.Load(), Connections: p.stats.connections.Load(), Failed: p.stats.failed.Load(),
			ToGuest: p.stats.toGuest.Load(), ToHost: p.stats.toHost.Load(),
		}
		for _, o := range p.open {
			info.Host = append(info.Host, o.addr)
		}
		if len(p.open) == 0 {
			for _, at := range p.plan.hosts {
				info.Host = append(info.Host, at.String())
			}
			if key.path != "" {
				info.Host = []string{key.path}
			}
		}
		slices.Sort(info.Host) // IPv4 first
		if l := p.plan.heard; l != nil {
			info.PID, info.Process = l.PID, l.Process
		}
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b Port) int {
		return cmp.Or(cmp.Compare(guestPort(a), guestPort(b)), cmp.Compare(a.Network, b.Network), cmp.Compare(a.Kind, b.Kind),
			slices.Compare(a.Host, b.Host))
	})
	return all
}

// guestPort returns the number for sorting ports; unix sockets come last.
func guestPort(p Port) int {
	at := p.Guest
	if at != "" && at[0] == ':' {
		at = "0.0.0.0" + at
	}
	if a, err := netip.ParseAddrPort(at); err == nil {
		return int(a.Port())
	}
	return 1 << 16
}
