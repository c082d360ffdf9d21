//go:build !linux && !windows

package forward

import "net/netip"

// Program returns the name, for people, of the program of the host that listens on an
// address; "" if it is not known.
func Program(network string, at netip.AddrPort) string { return "" }
