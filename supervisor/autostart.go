package supervisor

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/profile"
)

// autostart is the service that starts the distros that start with the VM, all at once.
type autostart struct{ s *supervisor }

func (autostart) Name() string { return "start of distros" }

func (a autostart) Run(ctx context.Context, _ VM) error {
	s := a.s
	reg, err := s.m.Registry()
	if err != nil {
		return fmt.Errorf("no distro starts with the VM: %w", err)
	}
	p, err := s.m.LoadProfile()
	if err != nil {
		s.log.Warn("distros start with the VM without what the profile says", "err", err)
		p = profile.Default()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, d := range reg.Distros {
		if !d.Autostart {
			continue
		}
		done := s.usage.begin(true)
		wg.Go(func() {
			defer done()
			req := &supervisorv1.StartDistroRequest{Id: d.ID, Env: append(slices.Clone(s.DistroEnv), p.Distro(d.Name).Environment...), Timezone: machine.HostTimezone()}
			err := s.startDistro(ctx, req, startEvents{
				stage: func(string) {},
				warn:  func(text string) { s.log.Warn(text) },
				step:  func(*supervisorv1.Step) {},
			})
			if err != nil && ctx.Err() == nil && !s.life.isStopping() {
				s.log.Error("a distro does not start with the VM", "distro", d.Name, "err", err)
			}
		})
	}
	return nil
}
