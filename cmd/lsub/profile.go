package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// loadProfile reads what the user says of a machine and its distros.
func loadProfile(m *machine.Machine) (*profile.Profile, error) {
	p, err := profile.Load(filepath.Join(m.Dir(), profile.File))
	var wrong *profile.Error
	if errors.As(err, &wrong) {
		return nil, hint.New(err, "correct the file; docs/profile.md has every key")
	}
	return p, err
}

// equipSession adds what the profile says of commands to one.
func (a *app) equipSession(ctx context.Context, s *session) error {
	p, err := a.equipDistro(ctx, &s.distro)
	if err != nil {
		return err
	}
	s.env = append(proxyEnv(&p.Network, os.Getenv), s.env...)
	return nil
}

// equipDistro gives a distro the certificates that the profile has for it.
// Under a VM that runs, a profile that has become bad does not keep anybody
// out, and it gives the default one.
func (a *app) equipDistro(ctx context.Context, d *machine.Distro) (*profile.Profile, error) {
	p, err := loadProfile(a.machine)
	if err != nil {
		if _, off := a.machine.Status(ctx); off != nil {
			return nil, err
		}
		a.note("warning", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return profile.Default(), nil
	}
	if err := a.addCertificates(ctx, d, p); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		a.note("warning", err.Error())
	}
	return p, nil
}
