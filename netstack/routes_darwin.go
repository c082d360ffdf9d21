package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/route"
)

// HostRoutes returns the host's IPv4 routes.
func HostRoutes() ([]HostRoute, error) {
	rib, err := route.FetchRIB(syscall.AF_INET, route.RIBTypeRoute, 0)
	if err != nil {
		return nil, fmt.Errorf("read the host's routes: %w", err)
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, rib)
	if err != nil {
		return nil, fmt.Errorf("read the host's routes: %w", err)
	}
	var routes []HostRoute
	for _, m := range messages {
		r, ok := m.(*route.RouteMessage)
		if !ok || len(r.Addrs) <= syscall.RTAX_NETMASK {
			continue
		}
		to, isIPv4 := r.Addrs[syscall.RTAX_DST].(*route.Inet4Addr)
		if !isIPv4 {
			continue
		}
		bits := 32 // a route without a mask is for one address
		if mask, ok := r.Addrs[syscall.RTAX_NETMASK].(*route.Inet4Addr); ok {
			bits, _ = net.IPMask(mask.IP[:]).Size()
		}
		found := HostRoute{Prefix: netip.PrefixFrom(netip.AddrFrom4(to.IP), bits).Masked()}
		if card, err := net.InterfaceByIndex(r.Index); err == nil {
			found.Interface = card.Name
		}
		routes = append(routes, found)
	}
	return routes, nil
}
