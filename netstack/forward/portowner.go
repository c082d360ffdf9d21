package forward

import (
	"cmp"
	"context"
	"net/netip"
	"time"
)

const (
	// ownerAge is how long a known owner of an address stays valid.
	ownerAge = 30 * time.Second
	// ownerTimeout bounds the search for an owner.
	ownerTimeout = 5 * time.Second
)

// Owner is who has an address of the host.
type Owner struct {
	Text string // for people; "" if it is not known
	// Yields says that it is no program of the host: clients of the address look for a
	// guest. So the port is opened as soon as it is free.
	Yields bool
}

// takenBy is the reason of a port whose address somebody else has. f.mu is held.
func (p *port) takenBy(at netip.AddrPort) string {
	reason := at.String() + " is taken by " + cmp.Or(p.owner.Text, "another program of the host")
	if p.blocked && p.wanted {
		reason += "; it is not forwarded until the distro listens on it anew"
	}
	return reason
}

// identify finds the owner of an address in the background, and then updates the reason. The
// caller holds f.mu.
func (p *port) identify(at netip.AddrPort) {
	f := p.f
	if f.cfg.PortOwner == nil || time.Since(p.asked) < ownerAge {
		return
	}
	p.asked = time.Now()
	network := p.plan.key.network
	f.wg.Go(func() {
		f.asking.Lock()
		defer f.asking.Unlock()
		ctx, cancel := context.WithTimeout(f.ctx, ownerTimeout)
		defer cancel()
		who := f.cfg.PortOwner(ctx, network, at)
		f.mu.Lock()
		defer f.mu.Unlock()
		before := p.takenBy(at)
		p.owner = who
		p.blocked = p.blocked && !who.Yields
		f.look()
		if now := p.takenBy(at); p.reason == before && now != before {
			p.reason = now
			f.log.Warn("a port is not forwarded as asked", "network", network, "guest", p.plan.guest, "why", now)
			f.tellChange()
		}
	})
}

// inTheWay reports whether a listener on has blocks listening on at.
func inTheWay(has, at netip.AddrPort) bool {
	if has.Port() != at.Port() {
		return false
	}
	a := has.Addr().Unmap()
	return a == at.Addr() || a.IsUnspecified() && (a.Is6() || at.Addr().Is4()) || at.Addr().IsUnspecified() && a.Is4() == at.Addr().Is4()
}
