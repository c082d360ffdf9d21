package forward

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
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
	wanted bool // its addresses are not open yet
	// settled: another number was looked for already.
	settled bool
	// blocked: a program of the host had an address when the listener began, whose process
	// was blockedPID (0 where unknown). The clients of that program must never reach the
	// guest, so the port stays closed for this listener, also when it is free.
	blocked    bool
	blockedPID int
	state      string
	reason     string
	since      time.Time
	owner      Owner // who has the address that is taken, as far as known
	asked      time.Time

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
			p = &port{f: f, since: time.Now(), wanted: true}
			f.ports[pl.key] = p
			changed = true
		}
		changed = p.update(ctx, pl) || changed
		retry = retry || !p.blocked && (p.state == StateFailed || p.wanted)
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

// openAddrs opens the port on all its addresses, or on none: the clients of a program that
// has one of them may try the others too, as "localhost" has them do.
func (p *port) openAddrs(ctx context.Context) {
	if p.blocked && p.isNew() {
		p.blocked = false
	}
	if !p.wanted || p.blocked {
		return
	}
	all, at, err := p.listenAll(ctx, p.plan.hosts)
	if err == nil {
		p.open, p.wanted, p.reason = all, false, ""
		return
	}
	if p.plan.key.kind == KindAuto && errors.Is(err, syscall.EADDRINUSE) && p.holder(at) == nil && !p.owner.Yields && p.served(at) {
		p.blocked = true
		if l := p.plan.heard; l != nil {
			p.blockedPID = l.PID
		}
	}
	p.reason = p.inWords(at, err)
	if !p.f.cfg.NextFree || p.plan.key.kind != KindAuto || p.settled {
		return
	}
	p.settled = true // a later change would surprise the users of the open addresses
	if all := p.listenNext(ctx); all != nil {
		p.open, p.wanted = all, false
		p.reason = p.inWords(at, err)
	}
}

// served tells whether a program of the host listens on an address. A connection may have
// the port too, for a moment: then there is nobody to protect.
func (p *port) served(at netip.AddrPort) bool {
	if p.plan.key.network != TCP {
		return false
	}
	to := at
	if at.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	c, err := net.DialTimeout(TCP, to.String(), 100*time.Millisecond)
	if err == nil {
		c.Close()
		return true
	}
	return errors.Is(err, os.ErrDeadlineExceeded) // it listens, and is busy
}

// isNew tells whether another process listens than when the port was blocked.
func (p *port) isNew() bool {
	l := p.plan.heard
	return l != nil && l.PID != 0 && p.blockedPID != 0 && l.PID != p.blockedPID
}

// maxTries is how many ports are tried in place of one that is taken.
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
		hosts := make([]netip.AddrPort, len(p.plan.hosts))
		for i, at := range p.plan.hosts {
			hosts[i] = netip.AddrPortFrom(at.Addr(), uint16(n))
		}
		if all, _, err := p.listenAll(ctx, hosts); err == nil {
			return all
		}
	}
	return nil
}

// listenAll opens all addresses. If one fails, it returns which and why, and none is open.
func (p *port) listenAll(ctx context.Context, hosts []netip.AddrPort) (all []opened, failed netip.AddrPort, err error) {
	for _, at := range hosts {
		o, err := p.listen(ctx, at)
		switch {
		case err == nil:
			all = append(all, o)
		case errors.Is(err, syscall.EADDRNOTAVAIL) && at.Addr() == netip.IPv6Loopback() && len(hosts) > 1:
			// A host without IPv6.
		default:
			for _, o := range all {
				o.Close()
			}
			return nil, at, err
		}
	}
	return all, netip.AddrPort{}, nil
}

// holder returns the port of ours that has an address, nil for none. f.mu is held.
func (p *port) holder(at netip.AddrPort) *port {
	for _, other := range p.f.ports {
		for _, o := range other.open {
			if o.addr == at.String() {
				return other
			}
		}
	}
	return nil
}

// inWords says why an address could not be opened. The caller holds f.mu.
func (p *port) inWords(at netip.AddrPort, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		if other := p.holder(at); other != nil {
			return at.String() + " is forwarded to " + other.plan.guest + " of another distro or by another rule"
		}
		p.identify(at)
		return p.takenBy(at)
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
