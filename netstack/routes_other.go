//go:build !linux && !darwin

package netstack

import (
	"fmt"
	"net"
	"net/netip"
)

// HostRoutes returns the networks of the host's cards. It does not see routes to networks
// behind those.
func HostRoutes() ([]HostRoute, error) {
	cards, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("read the host's networks: %w", err)
	}
	var routes []HostRoute
	for _, card := range cards {
		addrs, err := card.Addrs()
		if err != nil {
			return nil, fmt.Errorf("read the addresses of %s: %w", card.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				routes = append(routes, HostRoute{p.Masked(), card.Name})
			}
		}
	}
	return routes, nil
}
