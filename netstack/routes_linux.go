package netstack

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// HostRoutes returns the host's IPv4 routes of all tables, because VPNs have
// tables of their own.
func HostRoutes() ([]HostRoute, error) {
	data, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("read the host's routes: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return nil, fmt.Errorf("read the host's routes: %w", err)
	}
	var routes []HostRoute
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < syscall.SizeofRtMsg {
			continue
		}
		bits, kind := int(m.Data[1]), m.Data[7] // struct rtmsg: the destination's length, the type
		if kind == syscall.RTN_LOCAL || kind == syscall.RTN_BROADCAST {
			continue // their networks are listed too
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, fmt.Errorf("read the host's routes: %w", err)
		}
		var r HostRoute
		for _, a := range attrs {
			switch a.Attr.Type {
			case syscall.RTA_DST:
				if addr, ok := netip.AddrFromSlice(a.Value); ok {
					r.Prefix = netip.PrefixFrom(addr, bits)
				}
			case syscall.RTA_OIF:
				if len(a.Value) == 4 {
					if card, err := net.InterfaceByIndex(int(binary.NativeEndian.Uint32(a.Value))); err == nil {
						r.Interface = card.Name
					}
				}
			}
		}
		if r.Prefix.IsValid() {
			routes = append(routes, r)
		}
	}
	return routes, nil
}
