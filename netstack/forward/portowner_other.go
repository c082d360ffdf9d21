//go:build !linux

package forward

import "net/netip"

// Program names the program of the host that listens on an address, for people;
// "" if it is not known.
func Program(network string, at netip.AddrPort) string { return "" }
