package main

import (
	"context"
	"os"
	"strings"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// equipSession adds what the profile says of commands to one.
func (a *app) equipSession(ctx context.Context, s *session) error {
	p, err := a.equipDistro(ctx, &s.distro)
	if err != nil {
		return err
	}
	s.env = append(p.Network.ProxyEnv(os.Getenv), s.env...)
	return nil
}

// profileFor returns the profile for a distro that is about to be entered, and
// has the distro start with the network and the proxies that the profile says. Under a VM that
// runs, a profile that has become bad does not keep anybody out: then good is
// false, the profile the default one, and the distro's network what it was.
func (a *app) profileFor(ctx context.Context, d *machine.Distro) (p *profile.Profile, good bool, err error) {
	p, err = a.machine.LoadProfile()
	if err != nil {
		if _, off := a.machine.Status(ctx); off != nil {
			return nil, false, err
		}
		a.note("warning", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return profile.Default(), false, nil
	}
	d.Env = p.Network.ProxyEnv(os.Getenv)
	return p, true, a.placeDistro(ctx, d, p)
}

// equipDistro gives a distro what the profile has for it: its network, where it
// does not run yet, and certificates.
func (a *app) equipDistro(ctx context.Context, d *machine.Distro) (*profile.Profile, error) {
	p, good, err := a.profileFor(ctx, d)
	if err != nil || !good {
		return p, err
	}
	return p, a.trustCertificates(ctx, d, p)
}

// trustCertificates is addCertificates, without which a distro is of use all the same.
func (a *app) trustCertificates(ctx context.Context, d *machine.Distro, p *profile.Profile) error {
	err := a.addCertificates(ctx, d, p)
	if err != nil && ctx.Err() == nil {
		a.note("warning", err.Error())
		return nil
	}
	return err
}
