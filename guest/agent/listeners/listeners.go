// Package listeners tells which ports the processes of distros listen on.
//
// It asks the kernel (sock_diag), so it sees every socket, however a program made it.
// The kernel knows the control group of a socket's maker, and so the distro:
//
//	all, err := listeners.List(nil)
//	for _, l := range all {
//		fmt.Println(l.Distro, "listens on", l) // tcp 80 (apache2)
//	}
//
// A TCP socket listens after listen(2). A UDP socket counts as listening if it is bound
// and not connected, even if its program only waits for an answer.
//
// The package looks at the VM's network namespace and at those of isolated distros, each
// a [Netns]. It does not look at network namespaces within a distro, such as those of
// containers; a port that a container engine publishes is seen in the distro's. The
// package is Linux only.
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

// Listener is a socket that listens, or several that share an address.
type Listener struct {
	Network string         // TCP or UDP
	Addr    netip.AddrPort // the address may be unspecified; a zone is never set
	V6Only  bool           // [::] without IPv4
	Distro  string         // id
	PID     int            // of a process that holds the socket, as its distro counts; 0 where unknown
	Process string         // its name; "" where unknown
	Group   string         // control group of its maker, as its distro sees it: "system.slice/nginx.service"
	// Isolated tells that the socket is in the distro's own network, not in the VM's.
	Isolated bool

	inode uint32 // of one of its sockets; it changes with the socket
	group uint64 // control group of the socket's maker
}

// Netns is the network namespace of an isolated distro.
type Netns struct {
	Distro string // id
	// Do runs f on a thread in the namespace, or returns an error when the namespace
	// is gone.
	Do func(f func() error) error
}

// String shows the listener to people: "tcp 80 (apache2)", with its address unless it
// listens on all addresses.
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
