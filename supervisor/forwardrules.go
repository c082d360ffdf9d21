package supervisor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/lsub/lsub/netstack/forward"
	"github.com/lsub/lsub/profile"
)

// forwardRules are a profile's rules, one for each port and protocol.
func forwardRules(p *profile.Profile, getenv func(string) string) ([]forward.Rule, error) {
	var rules []forward.Rule
	for _, r := range p.Ports.Forwards {
		for _, network := range networks(r.Proto) {
			for n := range uint16(r.Count) {
				rule := forward.Rule{Network: network, Guest: forward.Target{
					Distro: r.Distro, Network: network, Address: fmt.Sprintf(":%d", r.Port+n),
				}}
				for _, a := range profile.HostAddresses(r.Listen.Addr()) {
					rule.Host = append(rule.Host, netip.AddrPortFrom(a, r.Listen.Port()+n))
				}
				rules = append(rules, rule)
			}
		}
	}
	for _, r := range p.Ports.Reverse {
		for _, network := range networks(r.Proto) {
			for n := range uint16(r.Count) {
				rules = append(rules, forward.Rule{
					Network: network, Reverse: true, Dial: net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port+n))),
					Guest: forward.Target{
						Distro: r.Distro, Network: network,
						Address: netip.AddrPortFrom(r.Listen.Addr(), r.Listen.Port()+n).String(),
					},
				})
			}
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	for _, s := range p.Ports.Sockets {
		path, err := profile.Expand(s.Host, home, getenv)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.At, err)
		}
		rules = append(rules, forward.Rule{
			Network: forward.Unix, Path: path, Reverse: s.ToHost,
			Guest: forward.Target{Distro: s.Distro, Network: forward.Unix, Address: s.Guest},
		})
	}
	return rules, nil
}

func networks(p profile.Proto) []string {
	var all []string
	if p.Has(profile.TCP) {
		all = append(all, forward.TCP)
	}
	if p.Has(profile.UDP) {
		all = append(all, forward.UDP)
	}
	return all
}
