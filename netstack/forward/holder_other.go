//go:build !linux

package forward

import "net/netip"

// Program names the program of the host that listens on an address, for people;
// "" where that cannot be told.
func Program(network string, at netip.AddrPort) string { return "" }
