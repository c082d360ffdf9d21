package forward

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

// FuzzPlans has a guest report arbitrary listeners. The host opens no more ports than the
// limit, only on addresses from Auto, and each only once.
func FuzzPlans(f *testing.F) {
	f.Add([]byte{0, 4, 127, 0, 0, 1, 0, 80, 1, 4, 0, 0, 0, 0, 0, 53})
	f.Add([]byte{2, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 31, 144, 0, 4, 10, 0, 0, 1, 31, 144})
	const most = 4
	rule := Rule{Network: TCP, Host: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080")}, Guest: Target{Distro: "debian", Network: TCP, Address: ":80"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		fw := New(Config{Auto: auto, Rules: []Rule{rule}, Limits: Limits{Ports: most}})
		for len(b) > 2 {
			kind, size := b[0], int(b[1]%17)
			b = b[2:]
			if len(b) < size+2 {
				break
			}
			addr, _ := netip.AddrFromSlice(b[:size]) // possibly not a valid address
			network := []string{TCP, UDP}[kind&1]
			fw.listeners = append(fw.listeners, Listener{
				Network: network, Addr: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[size:])), V6Only: kind&2 != 0,
				Distro: []string{"debian", "other", ""}[kind/4%3], PID: int(kind),
			})
			b = b[size+2:]
		}
		open := 0
		seen := map[portKey]bool{}
		for _, p := range fw.plans() {
			if seen[p.key] {
				t.Errorf("%+v is there twice", p.key)
			}
			seen[p.key] = true
			if p.key.kind == KindRule {
				continue
			}
			open++
			for _, h := range p.hosts {
				if !slices.Contains(loopbacks, h.Addr()) || h.Port() != p.key.guest {
					t.Errorf("%v is to be open for %s", h, p.guest)
				}
			}
			if !local(p.heard.Addr.Addr()) {
				t.Errorf("%v of the guest is forwarded", p.heard.Addr)
			}
		}
		if open > most {
			t.Errorf("%d ports are to be open", open)
		}
	})
}
