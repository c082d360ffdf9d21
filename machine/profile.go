package machine

import (
	"errors"
	"path/filepath"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
)

// LoadProfile reads what the user says of the VM and its distros.
func (m *Machine) LoadProfile() (*profile.Profile, error) {
	p, err := profile.Load(filepath.Join(m.dir, profile.File))
	var wrong *profile.Error
	if errors.As(err, &wrong) {
		return nil, hint.New(err, "correct the file; docs/profile.md has every key")
	}
	return p, err
}
