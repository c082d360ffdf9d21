package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Card is the name of the network card, the VM's and each distro's.
const Card = "eth0"

// sysctls are the settings of each network namespace, below /proc/sys.
var sysctls = map[string]string{
	"net/ipv4/ping_group_range": "0 2147483647", // ping without capabilities
	"net/ipv4/ip_forward":       "1",            // for containers in distros
}

// SetUp brings up lo, and the VM's card where it has one.
func (v VM) SetUp() error {
	if !v.Address.IsValid() {
		return setUpLoopback()
	}
	return v.setUpCard(v.Address.Addr())
}

// SetUpDistro brings up lo and the card of a distro. The calling thread is in the
// distro's network namespace. Without a network addr is invalid, and only lo is brought up.
func (v VM) SetUpDistro(addr netip.Addr) error {
	if !addr.IsValid() {
		return setUpLoopback()
	}
	return v.setUpCard(addr)
}

func setUpLoopback() error {
	for name, value := range sysctls {
		set(name, value) // a kernel without it does without
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return nil
}

// setUpCard gives the card an address, and leads all that is not of the subnet to
// the gateway.
func (v VM) setUpCard(addr netip.Addr) error {
	if err := setUpLoopback(); err != nil {
		return err
	}
	eth0, err := netlink.LinkByName(Card)
	if err != nil {
		return fmt.Errorf("%s: %w", Card, err)
	}
	if err := netlink.LinkSetMTU(eth0, v.MTU); err != nil {
		return fmt.Errorf("%s: mtu %d: %w", Card, v.MTU, err)
	}
	own := netip.PrefixFrom(addr, v.Address.Bits())
	if err := netlink.AddrReplace(eth0, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
		return fmt.Errorf("%s: address %s: %w", Card, own, err)
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("%s: %w", Card, err)
	}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: v.Gateway.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("%s: route by %s: %w", Card, v.Gateway, err)
	}
	return nil
}

// Attach makes the veth pair of a distro: eth0 in its network namespace, and the VM's end
// with a route to the distro. The calling thread is in the VM's network namespace. Without
// a network it does nothing.
func (v VM) Attach(namespace *os.File, addr netip.Addr) (err error) {
	if !addr.IsValid() {
		return nil
	}
	if err := v.answerFor(Card); err != nil {
		return err
	}
	name := v.linkName(addr)
	v.Detach(addr) // one that a distro before could not take along
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: v.MTU},
		PeerName:  Card, PeerNamespace: netlink.NsFd(int(namespace.Fd())),
	}
	if err := netlink.LinkAdd(pair); err != nil { // loads the module veth for the first
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() {
		if err != nil {
			v.Detach(addr)
		}
	}()
	// The way there is by routes and IPv4 alone; what comes from there has the
	// distro's own address.
	set("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	if err := set("net/ipv4/conf/"+name+"/rp_filter", "1"); err != nil {
		return err
	}
	if err := v.answerFor(name); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Src: v.Address.Addr().AsSlice(),
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("%s: route to %s: %w", name, addr, err)
	}
	return nil
}

// Detach removes the veth pair of a distro. It is no error if there is none.
func (v VM) Detach(addr netip.Addr) error {
	if !addr.IsValid() {
		return nil
	}
	link, err := netlink.LinkByName(v.linkName(addr))
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// answerFor has the VM answer at once whoever asks on a link for an address that
// it has a route to.
func (v VM) answerFor(link string) error {
	if err := set("net/ipv4/neigh/"+link+"/proxy_delay", "0"); err != nil {
		return err
	}
	return set("net/ipv4/conf/"+link+"/proxy_arp", "1")
}

// set changes a setting of the calling thread's network namespace.
func set(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
