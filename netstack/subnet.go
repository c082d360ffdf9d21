package netstack

import (
	"errors"
	"net/netip"

	"github.com/lsub/lsub/hint"
)

// HostRoute is a network to which the host has a route.
type HostRoute struct {
	Prefix    netip.Prefix
	Interface string // "" if unknown
}

// widest is the shortest prefix of a route that counts as a network. Wider routes, such as a
// VPN's two halves of the Internet, lead everywhere, also where nothing is.
const widest = 8

// Conflict returns the route whose network overlaps subnet. From inside a VM with that
// subnet, the common addresses cannot be reached.
func Conflict(subnet netip.Prefix, routes []HostRoute) (HostRoute, bool) {
	for _, r := range routes {
		if r.Prefix.Bits() >= widest && r.Prefix.Overlaps(subnet) && r.Prefix.Addr().Is4() {
			return r, true
		}
	}
	return HostRoute{}, false
}

// ChooseSubnet returns a network for a VM to which the host has no route. It returns last,
// the VM's earlier network, if that is free; last may be zero.
func ChooseSubnet(last netip.Prefix, routes []HostRoute) (netip.Prefix, error) {
	if last.IsValid() && last.Addr().Is4() {
		if _, taken := Conflict(last, routes); !taken {
			return last, nil
		}
	}
	for _, c := range candidates() {
		if _, taken := Conflict(c, routes); !taken {
			return c, nil
		}
	}
	return netip.Prefix{}, hint.New(errors.New("the host has routes to all private networks, and none is left for the VM"),
		"choose one in the profile: network.subnet")
}

// candidates are the networks to try: first those that routers and companies seldom use, last
// those for other purposes, which are free if a VPN takes all others.
func candidates() []netip.Prefix {
	list := []netip.Prefix{netip.MustParsePrefix(DefaultSubnet)}
	add := func(a, b, c byte) {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, c, 0}), 24))
	}
	for c := byte(128); c < 250; c++ {
		add(192, 168, c)
	}
	for b := byte(31); b >= 24; b-- {
		add(172, b, 127)
	}
	for b := 210; b < 250; b++ {
		add(10, byte(b), 127)
	}
	for b := byte(127); b >= 120; b-- { // of carriers' own networks
		add(100, b, 127)
	}
	add(198, 18, 127) // for benchmarks
	add(198, 19, 127)
	return list
}
