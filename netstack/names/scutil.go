package names

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseScutil parses the output of macOS' "scutil --dns": a list of resolvers, some for one
// domain only. It skips those that are scoped to a network interface, because only programs
// that ask for the interface use them.
func ParseScutil(data []byte) Resolv {
	var c Resolv
	text, _, _ := strings.Cut(string(data), "(for scoped queries)")
	var seen bool
	for _, block := range strings.Split(text, "\nresolver #")[1:] {
		var domain string
		var addrs []netip.Addr
		var search []string
		port := uint16(53)
		for line := range strings.Lines(block) {
			key, value, ok := strings.Cut(line, " : ")
			if !ok {
				continue
			}
			key, _, _ = strings.Cut(strings.TrimSpace(key), "[")
			value = strings.TrimSpace(value)
			switch strings.TrimSpace(key) {
			case "domain":
				domain = plainName(value)
			case "search domain":
				search = append(search, plainName(value))
			case "nameserver":
				if a, err := netip.ParseAddr(value); err == nil {
					addrs = append(addrs, a.Unmap())
				}
			case "port":
				if n, err := strconv.ParseUint(value, 10, 16); err == nil && n > 0 {
					port = uint16(n)
				}
			}
		}
		var servers []netip.AddrPort
		for _, a := range addrs {
			servers = append(servers, netip.AddrPortFrom(a, port))
		}
		switch {
		case domain != "" && len(servers) > 0:
			c.Routes = append(c.Routes, Route{domain, servers})
		case domain == "" && !seen: // the first one is the default
			c.Servers, c.Search, seen = servers, slices.DeleteFunc(search, func(s string) bool { return s == "" }), len(servers) > 0
		}
	}
	return c
}
