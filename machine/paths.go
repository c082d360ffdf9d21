package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/hint"
)

// Paths are the directories that lsub keeps its files in.
type Paths struct {
	Home    string // state: registries and disks
	Runtime string // sockets; short, because a socket's path has some 100 bytes at most
	Cache   string // what can be made again: images
}

// DefaultPaths returns where lsub keeps its files, as the environment says:
// LSUB_HOME, else the data directory of the operating system's custom, for the
// state. It makes no directory. getenv is os.Getenv, but for tests.
func DefaultPaths(getenv func(string) string) (Paths, error) {
	home, err := stateHome(getenv)
	if err != nil {
		return Paths{}, hint.New(fmt.Errorf("no folder for the state: %w", err), "set LSUB_HOME to a folder")
	}
	if home, err = filepath.Abs(home); err != nil {
		return Paths{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil { // HOME is unset, as in a bare service
		cache = filepath.Join(home, "cache")
	} else {
		cache = filepath.Join(cache, "lsub")
	}
	return Paths{Home: home, Runtime: runtimeHome(getenv), Cache: cache}, nil
}

func stateHome(getenv func(string) string) (string, error) {
	if dir := getenv("LSUB_HOME"); dir != "" {
		return dir, nil
	}
	switch runtime.GOOS {
	case "windows":
		if dir := getenv("LOCALAPPDATA"); dir != "" {
			return filepath.Join(dir, "lsub"), nil
		}
		return "", errors.New("%LOCALAPPDATA% is not set")
	case "darwin":
		home, err := os.UserHomeDir()
		return filepath.Join(home, "Library", "Application Support", "lsub"), err
	}
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lsub"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "share", "lsub"), err
}

func runtimeHome(getenv func(string) string) string {
	switch dir := getenv("XDG_RUNTIME_DIR"); {
	case runtime.GOOS == "windows":
		return filepath.Join(os.TempDir(), "lsub")
	case filepath.IsAbs(dir) && ownedByUs(dir): // under sudo it is often the other user's
		return filepath.Join(dir, "lsub")
	}
	return "/tmp/lsub-" + strconv.Itoa(os.Getuid())
}

// ProvisionLog is the file in which 'lsub up' and the supervisor note what they do in distros.
func (m *Machine) ProvisionLog() string { return m.path("provision.log") }

// RuntimeDir makes the directory for the profile's sockets. Its name is short and
// says nothing, because the path that it stands for may be long.
func (m *Machine) RuntimeDir() (string, error) {
	sum := sha256.Sum256([]byte(m.dir))
	dir := filepath.Join(m.cfg.Paths.Runtime, hex.EncodeToString(sum[:6]))
	for _, d := range []string{m.cfg.Paths.Runtime, dir} {
		if err := MakePrivate(d); err != nil {
			return "", fmt.Errorf("folder for the sockets: %w", err)
		}
	}
	return dir, nil
}

// RemoveRuntimeDir removes the directory for the profile's sockets, and the empty ones in it,
// unless something is still there. The caller holds the supervisor's lock.
func (m *Machine) RemoveRuntimeDir() {
	dir, err := m.RuntimeDir()
	if err != nil {
		return
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir)
}

// MakePrivate makes a directory that the user alone may enter, or checks that
// the one which is there is such a directory.
func MakePrivate(dir string) error {
	err := mkdirPrivate(dir)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return err
		}
		err = mkdirPrivate(dir)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return checkPrivate(dir)
}

// Others are the machines of the other profiles that this home has, in the order of
// their names. What one is asked starts nothing.
func (m *Machine) Others() ([]*Machine, error) {
	entries, err := os.ReadDir(filepath.Dir(m.dir))
	if err != nil {
		return nil, fmt.Errorf("list the profiles: %w", err)
	}
	var others []*Machine
	for _, e := range entries {
		if !e.IsDir() || e.Name() == m.cfg.Profile || CheckName("profile", e.Name()) != nil {
			continue
		}
		other, err := m.Other(e.Name())
		if err != nil {
			return nil, err
		}
		others = append(others, other)
	}
	return others, nil
}

// Other is the machine of another profile of this home, which need not be there. What it is
// asked starts nothing.
func (m *Machine) Other(profile string) (*Machine, error) {
	return Open(Config{Profile: profile, Paths: m.cfg.Paths, Version: m.cfg.Version, Patience: m.cfg.Patience})
}

// Exists tells whether the profile was used ever, or has a file.
func (m *Machine) Exists() bool {
	_, err := os.Stat(m.dir)
	return err == nil
}

// Remove removes the profile: its file, its distros and its VM, which must not run. Others that
// begin to use it meanwhile wait, and then find a profile that was never used.
func (m *Machine) Remove(ctx context.Context) error {
	start, err := filelock.Acquire(ctx, m.path("start.lock"), nil)
	if err != nil {
		return err
	}
	lock, err := filelock.TryAcquire(m.path("supervisor.lock"))
	if errors.Is(err, filelock.ErrLocked) {
		start.Release()
		return hint.New(fmt.Errorf("the VM of profile %s runs", m.cfg.Profile), "'lsub --profile "+m.cfg.Profile+" shutdown' ends it")
	}
	if err != nil {
		start.Release()
		return err
	}
	err = m.empty()
	// Windows removes no file that is open.
	for name, l := range map[string]*filelock.Lock{"supervisor.lock": lock, "start.lock": start} {
		gone := err != nil || os.Remove(m.path(name)) == nil
		l.Release()
		if !gone {
			os.Remove(m.path(name))
		}
	}
	if err != nil {
		return err
	}
	if err := os.Remove(m.dir); err != nil && m.Exists() {
		return fmt.Errorf("another lsub has begun to use profile %s again: %w", m.cfg.Profile, err)
	}
	return nil
}

// empty removes all files of the profile but the locks of its start.
func (m *Machine) empty() error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != "start.lock" && name != "supervisor.lock" {
			if err := os.RemoveAll(m.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}
