package machine

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
)

// LoadProfile reads what the user says of the VM and its distros.
func (m *Machine) LoadProfile() (*profile.Profile, error) {
	p, err := profile.LoadFrom(filepath.Join(m.dir, profile.File), m.ProfileSource(m.ProfileDir(), m.ProfileParams()))
	var wrong *profile.Error
	if errors.As(err, &wrong) {
		return nil, hint.New(err, "correct the file; docs/profile.md has every key")
	}
	return p, err
}

// originFile says where a profile's file comes from.
const originFile = "profile.json"

// origin is what originFile has.
type origin struct {
	Version int    `json:"version"`
	File    string `json:"file,omitempty"` // its path when it was taken over; "" for the profile's own
	// Params are the values that 'lsub up --set' has given to params of the file.
	Params map[string]string `json:"params,omitempty"`
}

// ProfileOrigin returns the file of which the profile's is a copy, "" for none.
func (m *Machine) ProfileOrigin() string {
	return m.origin().File
}

// ProfileParams returns the values that 'lsub up --set' has given to params of the file.
func (m *Machine) ProfileParams() map[string]string { return m.origin().Params }

func (m *Machine) origin() origin {
	var o origin
	if err := readJSON(m.path(originFile), 1, &o, m.cfg.Logger); err != nil {
		return origin{Version: 1}
	}
	return o
}

// SetProfileParams has the file's params have values.
func (m *Machine) SetProfileParams(params map[string]string) error {
	o := m.origin()
	if maps.Equal(o.Params, params) {
		return nil
	}
	if err := m.MakeDir(); err != nil {
		return err
	}
	o.Params = params
	return writeJSON(m.path(originFile), o)
}

// ProfileDir is where relative paths of the profile's file start: the folder of the file of
// which it is a copy, or its own.
func (m *Machine) ProfileDir() string {
	if origin := m.ProfileOrigin(); origin != "" {
		return filepath.Dir(origin)
	}
	return m.dir
}

// ProfileFile is the path of the profile's file, which need not be there.
func (m *Machine) ProfileFile() string { return m.path(profile.File) }

// TakeProfile makes the profile's file a copy of another one, whose path is absolute. The one
// before is kept beside it, with ".old" at its end.
func (m *Machine) TakeProfile(file string, data []byte) error {
	if err := m.MakeDir(); err != nil {
		return err
	}
	path := m.ProfileFile()
	before, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(before, data):
	case err == nil:
		if err := atomicfile.Write(path+".old", before, 0o600); err != nil {
			return err
		}
		fallthrough
	case errors.Is(err, fs.ErrNotExist):
		if err := atomicfile.Write(path, data, 0o600); err != nil {
			return err
		}
	default:
		return err
	}
	if m.ProfileOrigin() == file {
		return nil
	}
	return writeJSON(m.path(originFile), origin{1, file, m.ProfileParams()})
}
