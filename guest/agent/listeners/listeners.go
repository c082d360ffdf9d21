// Package listeners tells which ports the processes of distros listen on.
//
// The kernel is asked (sock_diag), so a socket counts whoever made it, with
// whatever calls. Each socket carries the control group of its maker, and so
// its distro:
//
//	all, err := listeners.List(nil)
//	for _, l := range all {
//		fmt.Println(l.Distro, "listens on", l) // tcp 80 (apache2)
//	}
//
// A TCP socket listens after listen(2). A UDP socket listens where it is bound
// and not connected: also that of a program which only waits for an answer.
//
// Sockets are looked for in the VM's network namespace and in those of isolated
// distros, each a [Netns]. Those of network namespaces within a distro, as
// containers have them, are not the distro's: what a container engine publishes is.
// The package is Linux only.
package listeners

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// The networks of a [Listener].
const (
	TCP = "tcp"
	UDP = "udp"
)

// Listener is a socket that waits for somebody, or several that share an
// address.
type Listener struct {
	Network string         // TCP or UDP
	Addr    netip.AddrPort // the address may be unspecified; a zone is never set
	V6Only  bool           // [::] without IPv4
	Distro  string         // id
	PID     int            // of a process that holds the socket, as its distro counts; 0 where unknown
	Process string         // its name; "" where unknown
	Group   string         // control group of its maker, as its distro sees it: "system.slice/nginx.service"
	// Isolated: it is in a network of its distro's own, and not in the VM's.
	Isolated bool

	inode uint32 // of one of its sockets; it changes with the socket
	group uint64 // control group of the socket's maker
}

// Netns is the network namespace of an isolated distro.
type Netns struct {
	Distro string // id
	// Do runs f on a thread in the namespace, or returns an error where that is
	// no more.
	Do func(f func() error) error
}

// String is the listener for people: "tcp 80 (apache2)", and with its address
// where that is not every one.
func (l Listener) String() string {
	where := fmt.Sprint(l.Addr.Port())
	if !l.Addr.Addr().IsUnspecified() {
		where = l.Addr.String()
	}
	if l.Process == "" {
		return l.Network + " " + where
	}
	return fmt.Sprintf("%s %s (%s)", l.Network, where, l.Process)
}

// compare orders listeners by distro, port, network and address.
func compare(a, b Listener) int {
	return cmp.Or(
		cmp.Compare(a.Distro, b.Distro),
		cmp.Compare(a.Addr.Port(), b.Addr.Port()),
		cmp.Compare(a.Network, b.Network),
		a.Addr.Addr().Compare(b.Addr.Addr()),
		cmp.Compare(a.inode, b.inode),
	)
}

// merge sorts listeners, and makes one of those that share an address.
func merge(all []Listener) []Listener {
	slices.SortFunc(all, compare)
	return slices.CompactFunc(all, func(a, b Listener) bool {
		return a.Distro == b.Distro && a.Network == b.Network && a.Addr == b.Addr && a.V6Only == b.V6Only && a.Isolated == b.Isolated
	})
}
