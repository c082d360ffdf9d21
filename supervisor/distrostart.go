package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/profile"
)

// distroTimeout bounds the start of a distro. The guest has shorter bounds of its own,
// and says more.
const distroTimeout = 3 * time.Minute

// starts are the starts of distros that are under way. Of one distro, one follows the other.
type starts struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // by id; closed when the start has ended
}

// begin waits until no other start of the distro is under way. The caller calls end.
func (s *starts) begin(ctx context.Context, id string) (end func(), err error) {
	for {
		s.mu.Lock()
		other := s.busy[id]
		if other == nil {
			mine := make(chan struct{})
			if s.busy == nil {
				s.busy = map[string]chan struct{}{}
			}
			s.busy[id] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, id)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// startEvents hears how the start of a distro goes.
type startEvents struct {
	stage func(text string)
	warn  func(text string) // where the start goes on
	step  func(*supervisorv1.Step)
}

// startDistro starts a distro where it does not run, as the registry and the profile say,
// and returns when commands may enter it. The request has what is its caller's. A profile
// that has become bad keeps nobody out: the distro gets what it had before.
func (s *supervisor) startDistro(ctx context.Context, req *supervisorv1.StartDistroRequest, tell startEvents) error {
	id := req.Id
	end, err := s.starts.begin(ctx, id)
	if err != nil {
		return err
	}
	defer end()
	p, err := s.m.LoadProfile()
	if err != nil {
		s.log.Warn("a distro starts without what the profile says", "err", err)
		p = nil
	}
	d, err := s.placeDistro(ctx, id, p)
	if err != nil {
		return err
	}
	d.Env = req.Env
	spec := d.Guest()
	spec.Timezone = req.Timezone
	if s.Shares != nil {
		s.shares.await(ctx) // commands begin in them
	}
	tell.stage("starting " + d.Name)
	call, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	res, err := s.client().StartDistro(call, connect.NewRequest(&guestv1.StartDistroRequest{Distro: spec}))
	if err != nil {
		return err
	}
	for _, w := range res.Msg.Warnings {
		tell.warn(d.Name + ": " + w)
	}
	if p == nil {
		return nil
	}
	// Without the certificates the distro is of use all the same.
	if err := s.addCertificates(ctx, d, p, tell.stage); err != nil && ctx.Err() == nil {
		tell.warn(err.Error())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.startSteps(ctx, req, d, res.Msg.State.GetStartedAtNs(), p, tell)
}

// placeDistro returns the distro of an id, with the network that the profile says; nil
// leaves it as it was. The registry keeps it, for when the profile cannot be asked.
func (s *supervisor) placeDistro(ctx context.Context, id string, p *profile.Profile) (*machine.Distro, error) {
	reg, err := s.m.Registry()
	if err != nil {
		return nil, err
	}
	var found machine.Distro
	if err := reg.Change(id, func(d *machine.Distro) error { found = *d; return nil }); err != nil {
		return nil, err
	}
	if p == nil || found.Isolated == isIsolated(&found, p) {
		return &found, nil
	}
	err = s.m.Update(ctx, func(r *machine.Registry) error {
		return r.Change(id, func(d *machine.Distro) error {
			d.Isolated = isIsolated(d, p)
			found = *d
			return nil
		})
	})
	return &found, err
}

// dialer opens streams to the guest as soon as it serves, with words for why it cannot.
type dialer struct{ s *supervisor }

func (d dialer) Dial(ctx context.Context, port uint32) (net.Conn, error) { return d.s.dial(ctx, port) }

// client calls the guest.
func (s *supervisor) client() *guest.Client { return guest.NewClient(dialer{s}, s.Version) }

// StartDistro is startDistro for a command.
func (v service) StartDistro(ctx context.Context, req *connect.Request[supervisorv1.StartDistroRequest], out *connect.ServerStream[supervisorv1.StartDistroResponse]) error {
	s := v.s
	if theirs := req.Header().Get(machine.VersionHeader); theirs != s.Version {
		return machine.VersionError(s.Version, theirs)
	}
	defer s.usage.begin(true)()
	var mu sync.Mutex
	send := func(r *supervisorv1.StartDistroResponse) {
		mu.Lock()
		defer mu.Unlock()
		out.Send(r) // a caller that is gone hears nothing
	}
	tell := startEvents{
		stage: func(text string) {
			send(&supervisorv1.StartDistroResponse{Tell: &supervisorv1.StartDistroResponse_Stage{Stage: text}})
		},
		warn: func(text string) {
			send(&supervisorv1.StartDistroResponse{Tell: &supervisorv1.StartDistroResponse_Warning{Warning: text}})
		},
		step: func(step *supervisorv1.Step) {
			send(&supervisorv1.StartDistroResponse{Tell: &supervisorv1.StartDistroResponse_Step{Step: step}})
		},
	}
	tell.stage("waiting for the VM") // so that the caller knows that somebody listens
	err := s.startDistro(ctx, req.Msg, tell)
	switch {
	case errors.Is(err, errStopping):
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_RUNNING, "", "%v", err)
	case err == nil || ctx.Err() != nil || !machine.IsCut(err) && !errors.Is(err, net.ErrClosed):
		return err
	}
	select {
	case <-s.life.after(gone):
		// The caller looks up in the record why the VM has ended, as those do whose
		// streams to the guest break.
		panic(http.ErrAbortHandler)
	case <-time.After(hangUpTimeout):
		return fmt.Errorf("start the distro: %w", err)
	}
}
