package supervisor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/netstack/forward"
)

// askOther bounds the question to another profile's supervisor.
const askOther = time.Second

// profileWith names the profile, other than m's, whose VM has an address of the
// host, for people; "" for none.
func profileWith(ctx context.Context, m *machine.Machine, network string, at netip.AddrPort) string {
	others, err := m.Others()
	if err != nil {
		return ""
	}
	for _, other := range others {
		ctx, cancel := context.WithTimeout(ctx, askOther)
		var found *supervisorv1.Port
		other.Ports(ctx, false, func(ports []*supervisorv1.Port) error { // one that does not answer cannot be asked
			i := slices.IndexFunc(ports, func(p *supervisorv1.Port) bool {
				return p.Network == network && p.State != forward.StateFailed && slices.Contains(p.Host, at.String())
			})
			if i >= 0 {
				found = ports[i]
			}
			return nil
		})
		cancel()
		if found == nil {
			continue
		}
		who := fmt.Sprintf("lsub's profile %s", other.Profile())
		if name := distroNames(other)[found.Distro]; name != "" {
			who += fmt.Sprintf(", for %s in its distro %s", found.Guest, name)
		}
		return who
	}
	return ""
}
