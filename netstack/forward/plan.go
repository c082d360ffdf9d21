package forward

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// portKey identifies a port by its origin, not by its address on the host.
type portKey struct {
	kind    string
	network string
	guest   uint16         // for KindAuto
	netns   string         // for KindAuto: the network namespace that has the port, see Listener.netns
	host    netip.AddrPort // for KindRule: the first address
	path    string         // for KindSocket
}

// plan is a port that should be open.
type plan struct {
	key    portKey
	hosts  []netip.AddrPort
	path   string
	v4, v6 Target // for clients of either family; equal if there is one
	guest  string // the address in the guest, for people
	heard  *Listener
}

// plans returns the ports that should be open, rules first.
func (f *Forwarder) plans() []plan {
	var all []plan
	ruled := map[portKey]bool{} // ports of the guest with a rule
	for _, r := range f.cfg.Rules {
		if r.Reverse {
			continue
		}
		p := f.planRule(r)
		if p.heard != nil {
			ruled[autoKey(*p.heard)] = true
		}
		all = append(all, p)
	}
	return append(all, f.planAuto(ruled)...)
}

func autoKey(l Listener) portKey {
	return portKey{kind: KindAuto, network: l.Network, guest: l.Addr.Port(), netns: l.netns()}
}

// planRule returns the plan for a rule that listens on the host.
func (f *Forwarder) planRule(r Rule) plan {
	to, _ := f.resolve(r.Guest)
	if r.Network == Unix {
		key := portKey{kind: KindSocket, network: Unix, path: r.Path}
		return plan{key: key, path: r.Path, v4: to, v6: to, guest: to.Address}
	}
	p := plan{key: portKey{kind: KindRule, network: r.Network, host: r.Host[0]}, hosts: r.Host, guest: to.Address}
	var port uint16
	if _, err := fmt.Sscanf(to.Address, ":%d", &port); err != nil {
		p.v4, p.v6 = to, to
		return p
	}
	at := Listener{Network: r.Network, Addr: netip.AddrPortFrom(netip.Addr{}, port), Distro: to.Distro}
	for i, l := range f.listeners {
		if l.Network == r.Network && l.Addr.Port() == port && (to.Distro == "" || l.Distro == to.Distro) {
			p.heard, at = &f.listeners[i], l
			break
		}
	}
	p.v4, p.v6 = targets(at, f.listeners)
	if p.heard == nil { // the listener there is another distro's
		p.v4.Shared, p.v6.Shared = false, false
	}
	return p
}

// planAuto returns the plans for listeners without a rule.
func (f *Forwarder) planAuto(ruled map[portKey]bool) []plan {
	if f.cfg.Auto == nil {
		return nil
	}
	byKey := map[portKey]*plan{}
	var all []*plan
	for i, l := range f.listeners {
		key := autoKey(l)
		if !local(l.Addr.Addr()) || ruled[key] {
			continue
		}
		if p := byKey[key]; p != nil {
			if p.heard.PID == 0 {
				p.heard = &f.listeners[i]
			}
			continue
		}
		addrs := f.cfg.Auto(l)
		if len(addrs) == 0 {
			continue
		}
		p := &plan{key: key, heard: &f.listeners[i]}
		for _, a := range addrs {
			p.hosts = append(p.hosts, netip.AddrPortFrom(a, l.Addr.Port()))
		}
		p.v4, p.v6 = targets(l, f.listeners)
		byKey[key] = p
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b *plan) int { return cmp.Compare(a.key.guest, b.key.guest) })
	if limit := f.cfg.Limits.Ports; len(all) > limit {
		f.log.Warn("the guest listens on more ports than are forwarded", "listens", len(all), "limit", limit)
		all = all[:limit]
	}
	plans := make([]plan, len(all))
	for i, p := range all {
		p.guest = p.heard.Addr.String()
		plans[i] = *p
	}
	return plans
}

// local reports whether localhost reaches an address of the guest.
func local(a netip.Addr) bool {
	return a.IsUnspecified() || a == netip.IPv6Loopback() || a == netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// targets returns the targets of at's port for clients of IPv4 and IPv6: the loopback of
// their own family, unless only the other one listens.
func targets(at Listener, listeners []Listener) (v4, v6 Target) {
	has4, has6 := false, false
	for _, l := range listeners {
		if autoKey(l) != autoKey(at) {
			continue
		}
		switch a := l.Addr.Addr(); {
		case a.Is4():
			has4 = has4 || local(a)
		case a.IsUnspecified():
			has6, has4 = true, has4 || !l.V6Only
		default:
			has6 = has6 || local(a)
		}
	}
	shared := (has4 || has6) && !at.Isolated
	at4 := Target{at.Distro, at.Network, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Addr.Port()).String(), shared}
	at6 := Target{at.Distro, at.Network, netip.AddrPortFrom(netip.IPv6Loopback(), at.Addr.Port()).String(), shared}
	switch {
	case has6 && !has4:
		return at6, at6
	case has6:
		return at4, at6
	}
	return at4, at4
}
