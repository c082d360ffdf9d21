package supervisor

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/guestv1"
)

// DefaultIdle is how long the VM runs on when its last distro has stopped.
const DefaultIdle = time.Minute

// idle is the service that shuts the VM down when it has been idle for s.Idle: no
// distro runs, and nobody uses the guest.
type idle struct{ s *supervisor }

func (idle) Name() string { return "shutdown of an idle VM" }

func (i idle) Run(ctx context.Context, vm VM) error {
	after := i.s.Idle
	if after < 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running, failed := make(chan int), make(chan error, 1)
	go func() { failed <- watch(ctx, vm, running) }()
	distros := -1 // not known yet
	check := time.NewTimer(after)
	defer check.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case n := <-running:
			if n == 0 && distros != 0 {
				check.Reset(after)
			}
			distros = n
		case <-check.C:
			rest := after
			if distros == 0 {
				rest = i.shutdown(ctx, vm)
			}
			check.Reset(rest)
		}
	}
}

// watch tells how many distros run, at once and at every change.
func watch(ctx context.Context, vm VM, running chan<- int) error {
	stream, err := vm.Client().Watch(ctx, connect.NewRequest(&guestv1.WatchRequest{}))
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

// shutdown shuts the VM down, unless somebody has used it in the time that it may be
// idle. It returns after how long to ask again.
func (i idle) shutdown(ctx context.Context, vm VM) time.Duration {
	const again = time.Second
	s, u := i.s, &i.s.usage
	u.mu.Lock()
	seen := u.begun
	u.mu.Unlock()
	// A change may not have been told yet.
	if running, err := anyRuns(ctx, vm); err != nil || running {
		return min(s.Idle, again)
	}
	u.mu.Lock()
	quiet := time.Since(u.last)
	if quiet < s.Idle || u.active > 0 || u.begun != seen {
		u.mu.Unlock()
		return max(s.Idle-quiet, min(s.Idle, again))
	}
	s.life.ask() // from here on, those who come wait for the next VM
	u.mu.Unlock()
	s.log.Info("the VM is idle; shut it down", "for", s.Idle)
	if err := s.powerOff(ctx); err != nil {
		s.log.Warn("an idle VM runs on", "err", err)
	}
	return s.Idle
}

// anyRuns asks the guest whether a distro runs.
func anyRuns(ctx context.Context, vm VM) (bool, error) {
	if err := vm.Paused(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	info, err := vm.Client().Info(ctx, connect.NewRequest(&guestv1.InfoRequest{}))
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(info.Msg.Distros, func(d *guestv1.DistroState) bool { return d.Running }), nil
}
