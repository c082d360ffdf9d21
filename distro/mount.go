package distro

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
)

// Mount is a folder of the host that the distros see.
type Mount struct {
	machine.Share
	Guest   string // where distros see it
	Carrier string // that it has; "" while the VM is off
	PID     int    // of the process that serves it; 0 while none does
	Error   string // why distros do not see it; "" if they do, or would
}

// AddMount shares a folder of the host with all distros, at once and from now on. It starts
// no VM. The folder is as a user writes it.
func (s *Service) AddMount(ctx context.Context, m machine.Share) (Mount, error) {
	dir, err := machine.ShareableDir(m.Dir)
	if err != nil {
		return Mount{}, err
	}
	m.Dir, m.Source = dir, machine.ShareAdded
	shared, err := s.machine.AddShare(ctx, m)
	if err != nil {
		return Mount{}, s.machine.Explain(ctx, err)
	}
	mount := Mount{Share: m, Guest: "/mnt/host/" + machine.GuestPath(dir)}
	if shared != nil {
		mount.Carrier, mount.PID = shared.Carrier, int(shared.Pid)
	}
	return mount, nil
}

// RemoveMount shares a folder no longer, also with those who use it.
func (s *Service) RemoveMount(ctx context.Context, dir string) error {
	mounts, _, err := s.Mounts(ctx)
	if err != nil {
		return err
	}
	// One that is gone from the host can be removed too.
	if real, err := machine.ShareableDir(dir); err == nil {
		dir = real
	}
	if !slices.ContainsFunc(mounts, func(m Mount) bool { return m.Dir == dir }) {
		return hint.New(fmt.Errorf("%s is not shared", dir), "'lsub mount list' shows what is")
	}
	return s.machine.Explain(ctx, s.machine.RemoveShare(ctx, dir))
}

// Mounts returns the folders that are shared, and whether the VM runs. If it is off, they
// are those that it will share.
func (s *Service) Mounts(ctx context.Context) (all []Mount, running bool, err error) {
	shared, err := s.machine.Shares(ctx)
	if err == nil {
		for _, d := range shared {
			all = append(all, Mount{
				Share:   machine.Share{Dir: d.Share.Dir, Writable: d.Share.Writable, Metadata: d.Share.Metadata, Carrier: d.Share.Carrier, Source: d.Source},
				Guest:   d.Guest,
				Carrier: d.Carrier, PID: int(d.Pid), Error: d.Error,
			})
		}
		return all, true, nil
	}
	if !errors.Is(err, machine.ErrNotRunning) {
		return nil, false, s.machine.Explain(ctx, err)
	}
	p, err := s.machine.LoadProfile()
	if err != nil {
		return nil, false, err
	}
	configured, err := s.machine.ConfiguredShares(p, s.events.Warn)
	for _, c := range configured {
		all = append(all, Mount{Share: c, Guest: "/mnt/host/" + machine.GuestPath(c.Dir)})
	}
	return all, false, err
}
