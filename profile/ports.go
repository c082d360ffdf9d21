package profile

import (
	"net/netip"
	"strconv"
)

// Ports says which ports and sockets are forwarded between the host and the
// distros.
type Ports struct {
	Auto        bool        // a listener in a distro answers on the host, on the same port
	HostAddress netip.Addr  // of the host, for everything without an address of its own
	NextFree    bool        // a port that is taken on the host becomes the next free one
	Users       PortUsers   // who on the host may use forwarded ports
	Ranges      []PortRange // Auto is for these alone; empty: all
	Ignore      []PortRange // Auto is not for these
	Forwards    []Forward
	Reverse     []Reverse
	Sockets     []Socket
}

// PortUsers says which users of the host may use forwarded ports. A socket's file has its own
// permissions.
type PortUsers string

const (
	PortUsersAll   PortUsers = "all"
	PortUsersOwner PortUsers = "owner" // the one that lsub runs as, and root
)

// HostAddresses are those that a listener on addr takes: 127.0.0.1 means the
// host's loopback in both families, any other address itself.
func HostAddresses(addr netip.Addr) []netip.Addr {
	if addr == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return []netip.Addr{addr, netip.IPv6Loopback()}
	}
	return []netip.Addr{addr}
}

// Automatic tells whether Auto is for a port, where it is on at all.
func (p *Ports) Automatic(proto Proto, port uint16) bool {
	for _, r := range p.Ignore {
		if r.Contains(proto, port) {
			return false
		}
	}
	for _, r := range p.Ranges {
		if r.Contains(proto, port) {
			return true
		}
	}
	return len(p.Ranges) == 0
}

// Proto says which protocols a rule is for.
type Proto uint8

const (
	TCP Proto = 1 << iota
	UDP
	Both = TCP | UDP
)

// Has tells whether a rule for p is for all of q.
func (p Proto) Has(q Proto) bool { return p&q == q }

func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case Both:
		return "both"
	}
	return "Proto(" + strconv.Itoa(int(p)) + ")"
}

// PortRange is the ports from First to Last, both of which it has.
type PortRange struct {
	First, Last uint16 // not 0
	Proto       Proto
}

// Contains tells whether r has a port.
func (r PortRange) Contains(proto Proto, port uint16) bool {
	return r.Proto.Has(proto) && r.First <= port && port <= r.Last
}

// Forward takes connections on the host to a distro.
type Forward struct {
	Proto  Proto
	Listen netip.AddrPort // on the host, the first of Count ports
	Distro string         // in small letters; "" for whichever distro listens, of those in the VM's network
	Port   uint16         // in the distro, the first of Count ports
	Count  int            // at least 1; the nth port goes to the nth
	At     string         // "FILE:LINE:COLUMN" of the rule
}

// Reverse takes connections in a distro to the host.
type Reverse struct {
	Proto  Proto
	Distro string         // in small letters; "" for all in the VM's network
	Listen netip.AddrPort // in the distro, the first of Count ports
	Host   string         // name or address, as the host knows it
	Port   uint16         // of Host, the first of Count ports
	Count  int            // at least 1
	At     string
}

// Socket takes connections to a UNIX socket on one side to one on the other.
type Socket struct {
	ToHost bool   // the guest's is listened on, and the host's dialled; else the other way round
	Host   string // path on the host, as [Expand] takes it
	Distro string // in small letters
	Guest  string // path in the distro
	At     string
}
