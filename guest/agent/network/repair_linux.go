package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls changed after changes of the VM's card, its addresses and routes, until ctx is
// done. by has the numbers that identify the netlink sockets which
// made them: mostly the process's, as its own pid namespace counts.
func (v VM) Watch(ctx context.Context, changed func(by []uint32)) error {
	w, err := v.subscribe()
	if err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	return w.watch(ctx, changed)
}

// watcher hears of changes in the network namespace that it was made in.
type watcher struct {
	*nl.NetlinkSocket
	card int // its index
}

func (v VM) subscribe() (*watcher, error) {
	eth0, err := netlink.LinkByName(Card)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Card, err)
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
	return &watcher{s, eth0.Attrs().Index}, err
}

// watch closes the socket when ctx is done, and returns then.
func (w *watcher) watch(ctx context.Context, changed func(by []uint32)) error {
	stop := context.AfterFunc(ctx, w.Close)
	defer func() {
		if stop() {
			w.Close()
		}
	}()
	for {
		messages, _, err := w.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // too many at once: look without knowing who it was
		case err != nil:
			return fmt.Errorf("watch the network: %w", err)
		}
		var by []uint32
		concerned := err != nil
		for _, m := range messages {
			if !concerns(m, w.card) {
				continue
			}
			concerned = true
			if pid := m.Header.Pid; pid != 0 && !slices.Contains(by, pid) {
				by = append(by, pid)
			}
		}
		if concerned {
			changed(by)
		}
	}
}

// concerns tells whether a message of the kernel is about a card, given by its index, or
// about a route by it.
func concerns(m syscall.NetlinkMessage, card int) bool {
	index := func(b []byte) bool { return len(b) >= 4 && int(binary.NativeEndian.Uint32(b)) == card }
	switch m.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.Data) < unix.SizeofRtMsg {
			return false
		}
		attrs, _ := nl.ParseRouteAttr(m.Data[unix.SizeofRtMsg:])
		return slices.ContainsFunc(attrs, func(a syscall.NetlinkRouteAttr) bool {
			return a.Attr.Type == unix.RTA_OIF && index(a.Value)
		})
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return len(m.Data) >= 8 && index(m.Data[4:]) // ifinfomsg and ifaddrmsg
	}
	return false
}

// Repair puts back what the VM's card lacks, and returns what that was, in words for people.
func (v VM) Repair() (lacked []string, err error) {
	if !v.Address.IsValid() {
		return nil, nil
	}
	if lacked, err = v.lacks(); err != nil || len(lacked) == 0 {
		return nil, err
	}
	return lacked, v.setUpCard(v.Address.Addr())
}

// lacks returns what of the VM's card is not as setUpCard has made it.
func (v VM) lacks() (lacks []string, err error) {
	eth0, err := netlink.LinkByName(Card)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Card, err)
	}
	if eth0.Attrs().Flags&net.FlagUp == 0 {
		lacks = append(lacks, "it was down")
	}
	if mtu := eth0.Attrs().MTU; mtu != v.MTU {
		lacks = append(lacks, fmt.Sprintf("its MTU was %d", mtu))
	}
	addrs, err := netlink.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("%s: addresses: %w", Card, err)
	}
	if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet.String() == v.Address.String() }) {
		lacks = append(lacks, "its address was gone")
	}
	routes, err := netlink.RouteList(eth0, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("%s: routes: %w", Card, err)
	}
	if !slices.ContainsFunc(routes, func(r netlink.Route) bool {
		return r.Gw.Equal(v.Gateway.AsSlice()) && (r.Dst == nil || strings.HasSuffix(r.Dst.String(), "/0"))
	}) {
		lacks = append(lacks, "its route was gone")
	}
	return lacks, nil
}
