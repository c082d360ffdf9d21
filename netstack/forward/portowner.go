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

// takenBy is the reason for a port whose address is in use.
func takenBy(at netip.AddrPort, who string) string {
	return at.String() + " is taken by " + cmp.Or(who, "another program of the host")
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
		before := takenBy(at, p.owner)
		p.owner = who
		if now := takenBy(at, who); p.reason == before && now != before {
			p.reason = now
			f.log.Warn("a port is not forwarded as asked", "network", network, "guest", p.plan.guest, "why", now)
			f.tellChange()
		}
	})
}
