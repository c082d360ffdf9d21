package supervisor

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/netstack"
	"github.com/lsub/lsub/netstack/guesttcp"
	"github.com/lsub/lsub/netstack/names"
	"github.com/lsub/lsub/profile"
	"github.com/lsub/lsub/virtionet"
)

// newNetwork makes the network of a machine's VM as the profile says. own are the
// addresses of its distros. warn is for what the user should hear at the start.
func newNetwork(m *machine.Machine, p *profile.Profile, own *addresses, log, warn *slog.Logger) (Network, error) {
	subnet, err := chooseSubnet(m, p, warn)
	if err != nil {
		return nil, err
	}
	var n *netstack.Network
	n, err = netstack.New(netstack.Config{
		Subnet: subnet, NoHostAccess: !p.Network.HostAccess, Logger: log,
		Names:   names.Config{Hosts: p.Network.Hosts, Servers: p.Network.DNS, Search: p.Network.Search},
		Lookup:  func(name string) (netip.Addr, bool) { return own.lookup(name, n.Guest().Addr()) },
		Reverse: own.name,
	})
	if err != nil {
		return nil, err
	}
	return &network{Network: n, log: log}, nil
}

// chooseSubnet returns the VM's subnet: the profile's, else the one that it had
// before, else one that the host has no route to.
func chooseSubnet(m *machine.Machine, p *profile.Profile, warn *slog.Logger) (netip.Prefix, error) {
	routes, err := netstack.HostRoutes()
	if err != nil {
		return netip.Prefix{}, err
	}
	if subnet := p.Network.Subnet; subnet.IsValid() {
		if r, ok := netstack.Conflict(subnet, routes); ok {
			warn.Warn(fmt.Sprintf("%s: the VM cannot reach %v, to which this machine has a route%s, because its own network is %v",
				p.At("network.subnet"), r.Prefix, by(r.Interface), subnet))
		}
		return subnet, nil
	}
	last, err := m.Subnet()
	if err != nil {
		return netip.Prefix{}, err
	}
	subnet, err := netstack.ChooseSubnet(last, routes)
	if err != nil || subnet == last {
		return subnet, err
	}
	if last.IsValid() {
		r, _ := netstack.Conflict(last, routes)
		warn.Warn(fmt.Sprintf("the VM's network is %v from now on: %v is in use by this machine%s", subnet, last, by(r.Interface)))
	}
	return subnet, m.KeepSubnet(subnet)
}

func by(card string) string {
	if card == "" {
		return ""
	}
	return " by " + card
}

// network is a [Network]: netstack knows nothing of boot arguments, nor of the guest's
// loopback.
type network struct {
	*netstack.Network
	log *slog.Logger

	mu   sync.Mutex
	link *guesttcp.Link // by the card that was attached last; nil for none
}

// Attach also has connections to the guest's loopback go by the card.
func (n *network) Attach(card virtionet.Card) virtionet.Receiver {
	n.Detach()
	p := n.Network.Attach(card)
	link := guesttcp.New(guesttcp.Config{Card: card, Logger: n.log})
	p.Neighbor = link
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = link
	return p
}

func (n *network) Detach() {
	n.mu.Lock()
	link := n.link
	n.link = nil
	n.mu.Unlock()
	if link != nil {
		link.Close()
	}
}

func (n *network) Connect(at netip.AddrPort) (FastConn, error) {
	n.mu.Lock()
	link := n.link
	n.mu.Unlock()
	if link == nil {
		return nil, errNoCard
	}
	conn, err := link.Start(at)
	if err != nil {
		return nil, err // and no FastConn that holds a nil
	}
	return conn, nil
}

func (n *network) MAC() net.HardwareAddr { return n.GuestMAC() }

func (n *network) BootArgs() guest.BootArgs {
	return guest.BootArgs{Address: n.Guest(), Gateway: n.Gateway(), MTU: n.MTU(), Search: n.Search()}
}
