package listeners

import (
	"maps"
	"net/netip"
	"strconv"
	"testing"
)

func TestCountClients(t *testing.T) {
	at := func(addr, peer string, group uint64) socket {
		return socket{state: stateEstablished, addr: netip.MustParseAddrPort(addr), peer: netip.MustParseAddrPort(peer), group: group}
	}
	got := countClients([]socket{
		at("127.0.0.1:80", "127.0.0.1:61000", 1),
		at("127.0.0.1:80", "127.0.0.1:65535", 1),
		at("[::1]:80", "[::1]:61000", 2),
		at("127.0.0.1:80", "127.0.0.1:61001", 0), // nobody's
		at("127.0.0.1:80", "127.0.0.1:60999", 1),
		at("10.0.0.2:80", "10.0.0.1:61000", 1),
		// A client of a distro, and its server: both are here.
		at("127.0.0.1:62000", "127.0.0.1:40000", 1),
		at("127.0.0.1:40000", "127.0.0.1:62000", 1),
		at("127.0.0.1:80", "127.0.0.1:62001", 2),
		at("127.0.0.1:62001", "127.0.0.1:80", 1),
	}, 61000, func(s socket) string {
		if s.group == 0 {
			return ""
		}
		return "distro-" + strconv.FormatUint(s.group, 10)
	})
	if want := map[string]int{"distro-1": 2, "distro-2": 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
