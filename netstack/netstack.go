// Package netstack is the user-mode network of a VM: a gateway that answers ARP, ICMP and
// DNS, and forwards the guest's TCP and UDP connections as the host's own. It needs no
// privileges, and other machines see only the host.
//
//	network, err := netstack.New(netstack.Config{})
//	if err != nil {
//		return err
//	}
//	err = network.Serve(ctx, conn, virtionet.Stream) // until the VM is gone
//
// A hypervisor with access to the guest's memory calls [Network.Attach] instead of Serve, for
// three times the throughput.
//
// The network is IPv4 only, because the switch of gvisor-tap-vsock is. The guest has no route
// to IPv6 addresses, so programs fail at once there. Package names resolves names as the host
// does, IPv6 addresses included.
//
// The guest reaches what the host reaches, except for the network's own addresses, the host's
// loopback and link-local addresses. Of the network's own, the gateway answers DNS and ping.
// [Network.Host] stands for the host's loopback if [Config] allows that.
//
// A Network has no Close: gVisor's stack keeps its goroutines until the process ends. One
// process makes one.
package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/lsub/lsub/netstack/limiter"
	"github.com/lsub/lsub/netstack/names"
	"github.com/lsub/lsub/virtionet"
)

// The defaults of [Config].
const (
	DefaultSubnet = "192.168.127.0/24"
	DefaultMTU    = 65520 // 5 to 7 times the throughput of 1500
)

// zone is the domain of the network's own names: gateway.lsub.internal, host.lsub.internal,
// and those of Config.Lookup.
const zone = "lsub.internal."

// Config is the configuration of a [Network]. The zero value is ready to use.
type Config struct {
	Subnet netip.Prefix // IPv4, at least 8 addresses; zero means DefaultSubnet
	MTU    int          // bytes, 1280 to 65520; 0 means DefaultMTU
	// NoHostAccess closes the host's loopback to the guest.
	NoHostAccess bool
	// Lookup returns the address of an additional name below lsub.internal, in lower case and
	// without the zone. May be nil.
	Lookup func(name string) (netip.Addr, bool)
	// Reverse returns the name, without the zone, of an additional address of the network; ""
	// if it has none. May be nil.
	Reverse func(addr netip.Addr) string
	// Names configures the lookup of other names. New sets the fields for lsub.internal and
	// the host's loopback.
	Names  names.Config
	Logger *slog.Logger // nil discards
}

// Network is a network with a gateway. It is safe for concurrent use.
type Network struct {
	cfg    Config
	subnet netip.Prefix
	mtu    int
	log    *slog.Logger
	stack  *stack.Stack
	link   *link
	names  *names.Resolver
	tcp    *limiter.Limiter
	dials  *limiter.Limiter // TCP connections that are being dialed
	flows  *flows
	pings  *limiter.Limiter
	ping   func(to netip.Addr, sequence uint16, data []byte) error // from the host
	out    *outgoing
}

// gatewayMAC and guestMAC are locally administered addresses.
const gatewayMAC = "5a:94:ef:e4:0c:dd"

var guestMAC = net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}

// New makes a network. It opens no socket until a guest uses it.
func New(cfg Config) (*Network, error) {
	if !cfg.Subnet.IsValid() {
		cfg.Subnet = netip.MustParsePrefix(DefaultSubnet)
	}
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case !cfg.Subnet.Addr().Is4():
		return nil, fmt.Errorf("subnet %v is not IPv4", cfg.Subnet)
	case cfg.Subnet.Bits() > 29:
		return nil, fmt.Errorf("subnet %v has no room for a gateway, a guest and the host", cfg.Subnet)
	case cfg.MTU < 1280 || cfg.MTU > DefaultMTU:
		return nil, fmt.Errorf("mtu %d is outside 1280 to %d", cfg.MTU, DefaultMTU)
	}
	n := &Network{cfg: cfg, subnet: cfg.Subnet.Masked(), mtu: cfg.MTU, log: cfg.Logger, out: newOutgoing()}
	n.tcp, n.dials = n.newLimiter("TCP connections", maxTCP), n.newLimiter("TCP connections in the making", maxDials)
	udp := n.newLimiter("UDP flows", maxUDP) // for its words
	n.flows = newFlows(maxUDP, func() { udp.Warn("netstack: the guest has all the UDP flows that it may; the oldest make room") })
	n.pings, n.ping = n.newLimiter("pings", maxPings), pingFromHost
	bridgeLogs(cfg.Logger)
	n.names = names.New(n.namesConfig())
	if err := n.makeStack(); err != nil {
		return nil, fmt.Errorf("user-mode network: %w", err)
	}
	return n, nil
}

// newLimiter bounds a resource of the host that the guest uses.
func (n *Network) newLimiter(what string, max int) *limiter.Limiter {
	return limiter.New(n.log, max, "netstack: the guest has all the "+what+" that it may; more are refused")
}

// Gateway is the address of the gateway, which also answers DNS.
func (n *Network) Gateway() netip.Addr { return n.subnet.Addr().Next() }

// Guest is the guest's address, with the network's prefix length.
func (n *Network) Guest() netip.Prefix {
	return netip.PrefixFrom(n.Gateway().Next(), n.subnet.Bits())
}

// Host is the guest's address for servers on the host's loopback: the last one of the
// network. Its name is host.lsub.internal.
func (n *Network) Host() netip.Addr {
	b := n.subnet.Addr().As4()
	for i, bits := 3, 32-n.subnet.Bits(); bits > 0; i, bits = i-1, bits-8 {
		b[i] |= byte(1<<min(bits, 8) - 1)
	}
	return netip.AddrFrom4(b).Prev() // the address after it is the broadcast address
}

// GuestMAC is the address of the guest's card.
func (n *Network) GuestMAC() net.HardwareAddr { return guestMAC }

// MTU is the maximum payload of a frame, in bytes.
func (n *Network) MTU() int { return n.mtu }

// Serve moves frames between the guest's card and the network until conn fails or ctx is
// done. At the end of conn, it returns nil. It closes conn. For a card in the guest's memory,
// use [Network.Attach] instead.
func (n *Network) Serve(ctx context.Context, conn net.Conn, framing virtionet.Framing) error {
	// The switch checks its context only between frames.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	var err error
	switch framing {
	case virtionet.Stream:
		err = n.link.ports.Accept(ctx, &frameGuard{writeGuard: writeGuard{conn}, max: n.maxFrame()}, types.QemuProtocol)
	case virtionet.Datagram:
		err = n.link.ports.Accept(ctx, &datagramGuard{writeGuard: writeGuard{conn}, max: n.maxFrame()}, types.VfkitProtocol)
	default:
		return fmt.Errorf("unknown framing %d", framing)
	}
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// maxFrame is the longest frame that the guest may send, in bytes, with its Ethernet header
// and a VLAN tag.
func (n *Network) maxFrame() int { return n.mtu + 14 + 4 }
