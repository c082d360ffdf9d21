package forward

import (
	"cmp"
	"context"
	"net/netip"
	"time"
)

const (
	// ownerAge is how long it counts who has an address.
	ownerAge = 30 * time.Second
	// ownerTimeout bounds the search for one.
	ownerTimeout = 5 * time.Second
)

// takenBy is the reason of a port whose address somebody else has.
func takenBy(at netip.AddrPort, who string) string {
	return at.String() + " is taken by " + cmp.Or(who, "another program of the host")
}

// identify finds out in the background who has an address, and then says so.
// f.mu is held.
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
