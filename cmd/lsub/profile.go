package main

import (
	"errors"
	"path/filepath"

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
