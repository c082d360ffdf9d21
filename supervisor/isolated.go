package supervisor

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// isIsolated tells whether the profile gives a distro a network of its own.
func isIsolated(d *machine.Distro, p *profile.Profile) bool {
	return p.Distro(d.Name).Network == profile.NetworkIsolated
}

// isolateDistros gives all distros of a machine the network that the profile says,
// from their next start on. The registry keeps it, for when the profile cannot be asked.
func isolateDistros(ctx context.Context, m *machine.Machine, p *profile.Profile) error {
	reg, err := m.Registry()
	if err != nil || !slices.ContainsFunc(reg.Distros, func(d machine.Distro) bool { return d.Isolated != isIsolated(&d, p) }) {
		return err
	}
	return m.Update(ctx, func(r *machine.Registry) error {
		for i := range r.Distros {
			r.Distros[i].Isolated = isIsolated(&r.Distros[i], p)
		}
		return nil
	})
}

// addresses are those of the distros, as the guest tells them.
type addresses struct {
	machine *machine.Machine

	mu  sync.Mutex
	own map[string]netip.Addr // of the isolated distros that run, by id
}

// set takes over what the guest tells.
func (a *addresses) set(all []*guestv1.OwnNetwork) {
	own := map[string]netip.Addr{}
	for _, n := range all {
		addr, _ := netip.ParseAddr(n.Address) // invalid where it is none
		own[n.Distro] = addr
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own = own
}

// lookup returns the address of a distro by its name. A distro in the VM's network has
// shared, whether or not it runs; an isolated one has none when it does not.
func (a *addresses) lookup(name string, shared netip.Addr) (netip.Addr, bool) {
	reg, err := a.machine.Registry()
	if err != nil {
		return netip.Addr{}, false
	}
	d, err := reg.Find(name)
	if err != nil {
		return netip.Addr{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	addr, running := a.own[d.ID]
	switch {
	case running:
		return addr, addr.IsValid()
	case d.Isolated:
		return netip.Addr{}, false
	}
	return shared, true
}

// name returns the name of the isolated distro that has an address, "" for none.
func (a *addresses) name(addr netip.Addr) string {
	id := ""
	a.mu.Lock()
	for owner, own := range a.own {
		if own == addr {
			id = owner
		}
	}
	a.mu.Unlock()
	reg, err := a.machine.Registry()
	if id == "" || err != nil {
		return ""
	}
	for _, d := range reg.Distros {
		if d.ID == id {
			return strings.ToLower(d.Name)
		}
	}
	return ""
}
