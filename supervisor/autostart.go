package supervisor

import (
	"context"
	"fmt"
	"sync"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
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
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, d := range reg.Distros {
		if !d.Autostart {
			continue
		}
		done := s.usage.begin(true)
		wg.Go(func() {
			defer done()
			req := &supervisorv1.StartDistroRequest{Id: d.ID, Env: s.DistroEnv, Timezone: machine.HostTimezone()}
			err := s.startDistro(ctx, req, startEvents{
				stage: func(string) {},
				warn:  func(text string) { s.log.Warn(text) },
			})
			if err != nil && ctx.Err() == nil && !s.life.isStopping() {
				s.log.Error("a distro does not start with the VM", "distro", d.Name, "err", err)
			}
		})
	}
	return nil
}
