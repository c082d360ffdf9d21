package main

import (
	"context"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// preparer is the [distro.Preparer] of the command line.
type preparer struct{ app *app }

func (p preparer) Place(ctx context.Context, d *machine.Distro, prof *profile.Profile) error {
	return p.app.placeDistro(ctx, d, prof)
}

func (p preparer) Trust(ctx context.Context, d *machine.Distro, prof *profile.Profile) error {
	return p.app.addCertificates(ctx, d, prof)
}

// client talks to the guest, and starts the VM where it is off.
func (a *app) client() *guest.Client { return guest.NewClient(a.machine, a.version) }

// changeDistro changes a distro in the registry.
func (a *app) changeDistro(ctx context.Context, id string, change func(*machine.Distro) error) error {
	return a.machine.Update(ctx, func(r *machine.Registry) error { return r.Change(id, change) })
}

// placeDistro gives a distro the network that the profile says, from its next start on.
// The registry keeps it, for when the profile cannot be asked.
func (a *app) placeDistro(ctx context.Context, d *machine.Distro, p *profile.Profile) error {
	if d.Isolated == isIsolated(d, p) {
		return nil
	}
	return a.changeDistro(ctx, d.ID, func(r *machine.Distro) error {
		r.Isolated = isIsolated(r, p)
		d.Isolated = r.Isolated
		return nil
	})
}

// isIsolated tells whether the profile gives a distro a network of its own.
func isIsolated(d *machine.Distro, p *profile.Profile) bool {
	return p.Distro(d.Name).Network == profile.NetworkIsolated
}
