package forward

import (
	"context"
	"net"
	"net/netip"
	"testing"
)

// TestPortOwner: the reason names the owner of a taken port once it is known, and before that
// says "another program".
func TestPortOwner(t *testing.T) {
	g := newFakeGuest(t)
	at := netip.AddrPortFrom(loopbacks[0], uint16(freePort(t)))
	other, err := net.Listen(TCP, at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, nextFree := range []bool{false, true} {
		known := make(chan string)
		f := run(t, Config{Guest: g, Auto: func(Listener) []netip.Addr { return loopbacks[:1] }, NextFree: nextFree,
			PortOwner: func(ctx context.Context, network string, asked netip.AddrPort) Owner {
				if network != TCP || asked != at {
					t.Errorf("asked for %s %v", network, asked)
				}
				return Owner{Text: <-known}
			}})
		f.SetListeners([]Listener{listener(TCP, at.String())})
		until := "; it is not forwarded until the distro listens on it anew"
		if nextFree {
			until = ""
		}
		says := func(who string) func([]Port) bool {
			return func(p []Port) bool {
				return len(p) == 1 && p[0].Reason == at.String()+" is taken by "+who+until
			}
		}
		await(t, f, "taken", says("another program of the host"))
		known <- "nginx (process 7)"
		p := await(t, f, "known", says("nginx (process 7)"))[0]
		if want := map[bool]string{false: StateFailed, true: StateOpen}[nextFree]; p.State != want {
			t.Errorf("%+v, want it %s", p, want)
		}
	}
}
