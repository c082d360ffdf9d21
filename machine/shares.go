package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/profile"
)

// Where a share comes from.
const (
	ShareDefault = "default" // the profile says nothing
	ShareProfile = "profile"
	ShareAdded   = "added" // by a command
)

// Share is a directory of the host that distros see.
type Share struct {
	Dir      string `json:"dir"` // absolute, without links
	Writable bool   `json:"writable,omitempty"`
	Metadata bool   `json:"metadata,omitempty"`
	Carrier  string `json:"carrier,omitempty"` // as profile.Mount has it; "" for the best there is
	Source   string `json:"-"`
}

// sharesVersion is the format of shares.json.
const sharesVersion = 1

// sharesState is what commands have changed of the profile's mounts.
type sharesState struct {
	Version int      `json:"version"`
	Added   []Share  `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"` // directories of the profile's
	Told    bool     `json:"told,omitempty"`    // the user knows how a share becomes writable
}

func (m *Machine) readShares() (s sharesState, err error) {
	err = readJSON(m.path("shares.json"), sharesVersion, &s, m.cfg.Logger)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return s, fmt.Errorf("read the shares: %w", err)
	}
	return s, nil
}

// updateShares changes shares.json.
func (m *Machine) updateShares(ctx context.Context, change func(*sharesState)) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if err := m.MakeDir(); err != nil {
		return err
	}
	l, err := filelock.Acquire(ctx, m.path("registry.lock"), nil)
	if err != nil {
		return err
	}
	defer l.Release()
	s, err := m.readShares()
	if err != nil {
		return err
	}
	change(&s)
	s.Version = sharesVersion
	return writeJSON(m.path("shares.json"), &s)
}

// ConfiguredShares returns what a VM that starts shares: what the profile says, and commands
// have changed of it. It warns of directories that are not there.
func (m *Machine) ConfiguredShares(p *profile.Profile, warn func(text string)) ([]Share, error) {
	state, err := m.readShares()
	if err != nil {
		return nil, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	var all []Share
	for _, mount := range p.Mounts {
		source := ShareProfile
		if p.DefaultMounts {
			source = ShareDefault
		}
		dir, err := profile.Expand(mount.Dir, home, os.Getenv)
		if err == nil {
			dir, err = ShareableDir(dir)
		}
		if err != nil {
			if source != ShareDefault {
				warn(fmt.Sprintf("%s: %v", p.At("mounts"), err))
			}
			continue
		}
		if !slices.Contains(state.Removed, dir) {
			all = append(all, Share{dir, mount.Writable, mount.Metadata, mount.Carrier, source})
		}
	}
	for _, s := range state.Added {
		s.Source = ShareAdded
		all = slices.DeleteFunc(all, func(o Share) bool { return o.Dir == s.Dir })
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Share) int { return strings.Compare(a.Dir, b.Dir) }) // outer ones first
	return all, nil
}

// ShareableDir returns the path of a directory without links, if it can be shared.
func ShareableDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("share %s: %w", dir, err)
	}
	info, err := os.Stat(abs)
	switch {
	case err != nil:
		return "", fmt.Errorf("share %s: %w", dir, err)
	case !info.IsDir():
		return "", hint.New(fmt.Errorf("%s is no folder", dir), "share the folder that it is in")
	case filepath.Dir(abs) == abs:
		return "", hint.New(fmt.Errorf("%s cannot be shared as a whole", abs), "share a folder in it")
	}
	return abs, nil
}

// GuestPath returns where distros see a directory of the host, below /mnt/host, if it is
// shared: its path with slashes.
func GuestPath(dir string) string {
	if runtime.GOOS == "windows" {
		drive, rest, _ := strings.Cut(filepath.ToSlash(dir), ":")
		return strings.ToLower(drive) + rest
	}
	return strings.TrimPrefix(dir, "/")
}

// AddShare shares a directory from now on: in the VM if that runs, and in each later one. It
// starts no VM. shared is nil if none runs.
func (m *Machine) AddShare(ctx context.Context, s Share) (shared *supervisorv1.SharedDir, err error) {
	call, cancel := context.WithTimeoutCause(ctx, shareTimeout, errSilent())
	defer cancel()
	res, err := m.supervisor().AddShare(call, connect.NewRequest(&supervisorv1.AddShareRequest{Share: s.Message()}))
	if err == nil {
		shared = res.Msg.Shared
	} else if err = callError(call, err); !errors.Is(err, ErrNotRunning) {
		return nil, err
	}
	return shared, m.updateShares(ctx, func(state *sharesState) {
		state.Added = slices.DeleteFunc(state.Added, func(o Share) bool { return o.Dir == s.Dir })
		state.Added = append(state.Added, s)
	})
}

// shareTimeout bounds the changes of a VM's shares.
const shareTimeout = answerTimeout + 45*time.Second

// RemoveShare shares a directory no longer.
func (m *Machine) RemoveShare(ctx context.Context, dir string) error {
	call, cancel := context.WithTimeoutCause(ctx, shareTimeout, errSilent())
	defer cancel()
	_, err := m.supervisor().RemoveShare(call, connect.NewRequest(&supervisorv1.RemoveShareRequest{Dir: dir}))
	if err != nil {
		if err = callError(call, err); !errors.Is(err, ErrNotRunning) {
			return err
		}
	}
	return m.updateShares(ctx, func(state *sharesState) {
		state.Added = slices.DeleteFunc(state.Added, func(o Share) bool { return o.Dir == dir })
		if !slices.Contains(state.Removed, dir) {
			state.Removed = append(state.Removed, dir)
		}
	})
}

// Shares tells what the VM shares. If it is off, the error is [ErrNotRunning].
func (m *Machine) Shares(ctx context.Context) ([]*supervisorv1.SharedDir, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.Patience, errSilent())
	defer cancel()
	res, err := m.supervisor().Shares(ctx, connect.NewRequest(&supervisorv1.SharesRequest{}))
	if err != nil {
		return nil, callError(ctx, err)
	}
	return res.Msg.Shares, nil
}

// Message is the share as the protocol has it.
func (s *Share) Message() *supervisorv1.Share {
	return &supervisorv1.Share{Dir: s.Dir, Writable: s.Writable, Metadata: s.Metadata, Carrier: s.Carrier}
}

// TellOnce returns true the first time that it is called for a profile: the user has not
// been told yet how a share becomes writable.
func (m *Machine) TellOnce(ctx context.Context) bool {
	s, err := m.readShares()
	if err != nil || s.Told {
		return false
	}
	return m.updateShares(ctx, func(s *sharesState) { s.Told = true }) == nil
}
