package distro

import (
	"context"
	"strings"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// Preparer does on the host what the profile wants of a distro that is about to start.
type Preparer interface {
	// Place has d get the network that the profile says at its next start, and notes it
	// in d.
	Place(ctx context.Context, d *machine.Distro, p *profile.Profile) error
	// Trust has the distro trust the profile's certificates. It may start the distro.
	Trust(ctx context.Context, d *machine.Distro, p *profile.Profile) error
}

// prepare makes a distro ready to be entered, and returns the environment that commands
// in it get from the profile.
func (s *Service) prepare(ctx context.Context, d *machine.Distro) (env []string, err error) {
	p, good, err := s.placed(ctx, d)
	if err != nil {
		return nil, err
	}
	if good {
		err = s.trust(ctx, d, p)
	}
	return p.Network.ProxyEnv(s.cfg.Getenv), err
}

// placed loads the profile for a distro that is about to start, and gives the distro the
// network and the proxies that the profile says. A profile that has become bad keeps nobody
// out of a VM that runs: then good is false, the profile is the default one, and the
// distro's network stays as it was.
func (s *Service) placed(ctx context.Context, d *machine.Distro) (p *profile.Profile, good bool, err error) {
	p, err = s.machine.LoadProfile()
	if err != nil {
		if _, off := s.machine.Status(ctx); off != nil {
			return nil, false, err
		}
		s.events.Warn(strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return profile.Default(), false, nil
	}
	d.Env = p.Network.ProxyEnv(s.cfg.Getenv)
	if s.cfg.Preparer != nil {
		err = s.cfg.Preparer.Place(ctx, d, p)
	}
	return p, true, err
}

// trust has a distro trust the profile's certificates. Without them it is of use all the
// same, so a failure is a warning.
func (s *Service) trust(ctx context.Context, d *machine.Distro, p *profile.Profile) error {
	if s.cfg.Preparer == nil {
		return nil
	}
	err := s.cfg.Preparer.Trust(ctx, d, p)
	if err != nil && ctx.Err() == nil {
		s.events.Warn(err.Error())
		return nil
	}
	return err
}
