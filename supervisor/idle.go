package supervisor

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// DefaultIdle is how long the VM runs on when its last distro has stopped.
const DefaultIdle = time.Minute

// beginWork notes that somebody is about to use the guest; while they do, the
// VM does not go. The caller calls the function that it returns when it is
// done. With lasting, the time that the VM may be idle starts anew then: not so
// with questions, which would keep a VM up by looking at it.
func (s *supervisor) beginWork(lasting bool) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work++
	s.worked++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.work--
		if lasting {
			s.lastWork = time.Now()
		}
	}
}

// tend starts the distros that start with the VM, and shuts the VM down when
// it has been idle for s.Idle: no distro runs, and nobody uses the guest. It
// returns when ctx is done or the VM goes.
func (s *supervisor) tend(ctx context.Context) {
	s.autostart(ctx)
	if s.Idle < 0 {
		return
	}
	running := make(chan int)
	go func() {
		defer close(running)
		err := s.watch(ctx, running)
		if ctx.Err() == nil && !s.isStopping() {
			s.log.Warn("the VM will not be shut down when it is idle", "err", err)
		}
	}()
	distros := -1 // not known yet
	check := time.NewTimer(s.Idle)
	defer check.Stop()
	for {
		select {
		case n, ok := <-running:
			if !ok {
				return
			}
			if n == 0 && distros != 0 {
				check.Reset(s.Idle)
			}
			distros = n
		case <-check.C:
			rest := s.Idle
			if distros == 0 {
				rest = s.shutdownIdle(ctx)
			}
			check.Reset(rest)
		}
	}
}

// watch tells how many distros run, at once and at every change.
func (s *supervisor) watch(ctx context.Context, running chan<- int) error {
	stream, err := guest.NewClient(s.vm, s.Version).Watch(ctx, connect.NewRequest(&guestv1.WatchRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		select {
		case running <- len(stream.Msg().Distros):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(stream.Err(), errors.New("the guest does not tell any more which distros run"))
}

// shutdownIdle shuts the VM down, unless somebody has used it in the time that
// it may be idle. It returns after how long to ask again.
func (s *supervisor) shutdownIdle(ctx context.Context) time.Duration {
	const again = time.Second
	s.mu.Lock()
	seen := s.worked
	s.mu.Unlock()
	// What was told of a change may still be under way.
	if running, err := s.running(ctx); err != nil || running {
		return min(s.Idle, again)
	}
	s.mu.Lock()
	quiet := time.Since(s.lastWork)
	if quiet < s.Idle || s.work > 0 || s.worked != seen {
		s.mu.Unlock()
		return max(s.Idle-quiet, min(s.Idle, again))
	}
	s.asked++ // from here on, those who come wait for the next VM
	s.mu.Unlock()
	s.log.Info("the VM is idle; shut it down", "for", s.Idle)
	if err := s.powerOff(ctx); err != nil {
		s.log.Warn("an idle VM runs on", "err", err)
	}
	return s.Idle
}

// running asks the guest whether a distro runs.
func (s *supervisor) running(ctx context.Context) (bool, error) {
	if err := s.paused(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	info, err := guest.NewClient(s.vm, s.Version).Info(ctx, connect.NewRequest(&guestv1.InfoRequest{}))
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(info.Msg.Distros, func(d *guestv1.DistroState) bool { return d.Running }), nil
}

// autostart starts the distros that are to start with the VM, all at once.
func (s *supervisor) autostart(ctx context.Context) {
	reg, err := s.m.Registry()
	if err != nil {
		s.log.Error("no distro starts with the VM", "err", err)
		return
	}
	for _, d := range reg.Distros {
		if !d.Autostart {
			continue
		}
		d.Env = s.DistroEnv
		done := s.beginWork(true)
		s.starting.Go(func() {
			defer done()
			_, err := guest.NewClient(s.vm, s.Version).StartDistro(ctx, connect.NewRequest(&guestv1.StartDistroRequest{Distro: d.Guest()}))
			if err != nil && ctx.Err() == nil && !s.isStopping() {
				s.log.Error("a distro does not start with the VM", "distro", d.Name, "err", err)
			}
		})
	}
}
