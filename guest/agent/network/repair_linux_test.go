package network

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// addCard makes a card whose other end is up, too.
func addCard(name, far string) error {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: far}); err != nil {
		return err
	}
	l, err := netlink.LinkByName(far)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// TestRepair takes from the VM's card what it has: the watch tells, and all is put back.
func TestRepair(t *testing.T) {
	n := newNamespace(t)
	v := VM{Address: netip.MustParsePrefix("10.77.4.2/24"), Gateway: netip.MustParseAddr("10.77.4.1"), MTU: 1500}
	if err := n.try(func() error { return addCard(Card, "far") }); err != nil {
		t.Skipf("no card can be made here: %v", err)
	}
	n.do(t, v.SetUp)
	changes := make(chan []uint32, 100)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	watching := make(chan struct{})
	go func() {
		// The socket is made on the namespace's thread, and then read on any.
		n.calls <- func() {
			s, err := v.subscribe()
			close(watching)
			go func() {
				if err != nil {
					watched <- err
					return
				}
				watched <- s.watch(ctx, func(by []uint32) { changes <- by })
			}()
		}
	}()
	<-watching
	card := func() (netlink.Link, error) { return netlink.LinkByName(Card) }
	for _, c := range []struct {
		take func(netlink.Link) error
		want []string
	}{
		{func(l netlink.Link) error { return netlink.LinkSetDown(l) }, []string{"it was down", "its route was gone"}},
		{func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1400) }, []string{"its MTU was 1400"}},
		{func(l netlink.Link) error {
			return netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(v.Address)})
		}, []string{"its address was gone", "its route was gone"}},
		{func(l netlink.Link) error {
			return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: v.Gateway.AsSlice()})
		}, []string{"its route was gone"}},
	} {
		for len(changes) > 0 {
			<-changes
		}
		var lacked []string
		n.do(t, func() error {
			l, err := card()
			if err == nil {
				err = c.take(l)
			}
			if err == nil {
				lacked, err = v.Repair()
			}
			return err
		})
		if !slices.Equal(lacked, c.want) {
			t.Errorf("the card lacks %q, want %q", lacked, c.want)
		}
		select {
		case <-changes:
		case <-time.After(20 * time.Second):
			t.Errorf("the watch does not tell of %q", c.want)
		}
		n.do(t, func() (err error) {
			lacked, err = v.Repair()
			return err
		})
		if len(lacked) > 0 {
			t.Errorf("after the repair, the card lacks %q", lacked)
		}
	}
	// Another card is of no interest. What it brings comes before what the address brings.
	for len(changes) > 0 {
		<-changes
	}
	n.do(t, func() error {
		if err := addCard("other", "other-far"); err != nil {
			return err
		}
		l, err := card()
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.77.5.2/24"))})
	})
	select {
	case by := <-changes:
		if !slices.Contains(by, uint32(os.Getpid())) {
			t.Logf("the kernel names %d, we are %d", by, os.Getpid()) // another socket of ours has the number
		}
	case <-time.After(20 * time.Second):
		t.Error("the watch does not tell of another address")
	}
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}
