package distro

import (
	"context"

	"github.com/lsub/lsub/machine"
)

// For returns a Service like s for the machine of another profile.
func (s *Service) For(m *machine.Machine) *Service {
	other := *s
	other.machine, other.cfg.Machine = m, m
	return &other
}

// RemoveProfile removes the profile with all its distros and their files. Its VM must not run.
func (s *Service) RemoveProfile(ctx context.Context) error {
	reg, err := s.machine.Registry()
	if err != nil {
		return err
	}
	if err := s.machine.Remove(ctx); err != nil {
		return err
	}
	for _, d := range reg.Distros {
		if err := s.notAtLogin(&d); err != nil {
			s.events.Warn(err.Error())
		}
	}
	return nil
}
