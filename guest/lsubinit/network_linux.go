package main

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/lsub/lsub/guest"
)

// sysctls are kernel settings for a VM that is a desktop's Linux, below
// /proc/sys.
var sysctls = map[string]string{
	"net/ipv4/ping_group_range":     "0 2147483647", // ping without capabilities
	"net/ipv4/ip_forward":           "1",            // for containers in distros
	"fs/inotify/max_user_watches":   "524288",       // editors and file watchers
	"fs/inotify/max_user_instances": "1024",
	"vm/max_map_count":              "1048576",
	"kernel/keys/maxkeys":           "20000",
	"kernel/pid_max":                "4194304", // as systemd sets it; distros have a limit of their own
}

// setUpNetwork brings up lo, and eth0 with the address that the host chose.
func setUpNetwork(args guest.BootArgs) error {
	for name, value := range sysctls {
		os.WriteFile("/proc/sys/"+name, []byte(value), 0) // a kernel without it does without
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if !args.Address.IsValid() {
		return nil
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	if err := netlink.LinkSetMTU(eth0, args.MTU); err != nil {
		return fmt.Errorf("eth0: mtu %d: %w", args.MTU, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   args.Address.Addr().AsSlice(),
		Mask: net.CIDRMask(args.Address.Bits(), args.Address.Addr().BitLen()),
	}}
	if err := netlink.AddrAdd(eth0, addr); err != nil {
		return fmt.Errorf("eth0: address %s: %w", args.Address, err)
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: args.Gateway.AsSlice()}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("eth0: route by %s: %w", args.Gateway, err)
	}
	return nil
}
