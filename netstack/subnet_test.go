package netstack

import (
	"net"
	"net/netip"
	"testing"
)

func routesTo(prefixes ...string) (routes []HostRoute) {
	for _, p := range prefixes {
		routes = append(routes, HostRoute{netip.MustParsePrefix(p), "x0"})
	}
	return routes
}

func TestChooseSubnet(t *testing.T) {
	for _, tc := range []struct {
		last   string
		routes []HostRoute
		want   string
	}{
		{"", nil, DefaultSubnet},
		{"", routesTo("192.168.1.0/24", "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"), DefaultSubnet},
		{"10.77.0.0/24", routesTo("192.168.1.0/24"), "10.77.0.0/24"}, // unchanged
		{"10.77.0.0/24", routesTo("10.0.0.0/8"), DefaultSubnet},      // a VPN was added
		{"", routesTo("192.168.127.0/24"), "192.168.128.0/24"},       // in use
		{"", routesTo("192.168.127.77/32"), "192.168.128.0/24"},      // one of its addresses is
		{"", routesTo("192.168.0.0/16"), "172.31.127.0/24"},          //
		{"", routesTo("192.168.0.0/16", "172.16.0.0/12"), "10.210.127.0/24"},
		{"", routesTo("192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8"), "100.127.127.0/24"},
		{"", routesTo("192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "100.64.0.0/10"), "198.18.127.0/24"},
		{"", routesTo("192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "100.64.0.0/10", "198.18.0.0/15"), ""},
	} {
		var last netip.Prefix
		if tc.last != "" {
			last = netip.MustParsePrefix(tc.last)
		}
		got, err := ChooseSubnet(last, tc.routes)
		if (err != nil) != (tc.want == "") || err == nil && got.String() != tc.want {
			t.Errorf("%s, %v: %v, %v; want %q", tc.last, tc.routes, got, err, tc.want)
		}
	}
}

// TestCandidates checks that New accepts all candidates.
func TestCandidates(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for _, c := range candidates() {
		if seen[c] || c != c.Masked() || c.Bits() != 24 {
			t.Errorf("%v", c)
		}
		seen[c] = true
	}
}

// TestHostRoutes checks that the routes contain the networks of this host's cards.
func TestHostRoutes(t *testing.T) {
	routes, err := HostRoutes()
	if err != nil {
		t.Fatal(err)
	}
	cards, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, card := range cards {
		if card.Flags&net.FlagUp == 0 || card.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, _ := card.Addrs()
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || !p.Addr().Is4() || p.Bits() == 32 {
				continue
			}
			if r, ok := Conflict(p.Masked(), routes); !ok {
				t.Errorf("no route to %v of %s in %v", p, card.Name, routes)
			} else if r.Interface == "" {
				t.Errorf("the route %v has no card", r)
			}
		}
	}
}
