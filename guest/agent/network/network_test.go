package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
)

func TestFree(t *testing.T) {
	v := VM{Address: netip.MustParsePrefix("10.77.3.2/28"), Gateway: netip.MustParseAddr("10.77.3.1"), MTU: 1500}
	taken := map[netip.Addr]bool{}
	first, err := v.Free("debian-1", taken)
	if err != nil {
		t.Fatal(err)
	}
	// All there are: 16, without the subnet's own, the broadcasts', the gateway's, the
	// VM's and the one that stands for the host's loopback.
	for i := range 11 {
		addr, err := v.Free(fmt.Sprint("distro-", i), taken)
		if err != nil {
			t.Fatalf("address %d: %v", i, err)
		}
		last := addr.As4()[3]
		if taken[addr] || !v.Address.Contains(addr) || last < 3 || last > 13 {
			t.Errorf("address %d is %v", i, addr)
		}
		taken[addr] = true
	}
	if addr, err := v.Free("one-more", taken); !errors.Is(err, errFull) {
		t.Errorf("of a full subnet: %v, %v", addr, err)
	}
	if addr, err := v.Free("debian-1", map[netip.Addr]bool{}); addr != first || err != nil {
		t.Errorf("debian-1 had %v, and gets %v, %v", first, addr, err)
	}
	if addr, err := (VM{}).Free("debian-1", nil); addr.IsValid() || err != nil {
		t.Errorf("without a network: %v, %v", addr, err)
	}
	wide := VM{Address: netip.MustParsePrefix("10.77.0.2/16")}
	if name := wide.linkName(netip.MustParseAddr("10.77.255.253")); name != "lsub65533" {
		t.Errorf("the link is called %s", name)
	}
}
