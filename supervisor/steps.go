package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/profile"
)

// What a StartDistroRequest has as steps.
const (
	stepsAll   = ""
	stepsNone  = "none"
	stepsBoot  = string(profile.StepBoot)
	stepsReady = string(profile.StepReady)
)

// stillEvery is how often a call tells that its step still runs.
const stillEvery = 30 * time.Second

// startSteps are the profile's steps of the starts of distros.
type startSteps struct {
	mu     sync.Mutex
	jobs   map[string]*stepsJob // of distros, by id: the last one
	closed bool                 // no job begins any more
	wg     sync.WaitGroup       // of jobs
}

// stepsJob runs the steps of one start of a distro, one job of a distro after the other.
type stepsJob struct {
	start     int64              // when the distro started, to tell starts apart
	cancel    context.CancelFunc // ends it
	noWaiting context.CancelFunc // ends it while it waits for probes
	waiting   context.Context
	booted    chan struct{} // closed when the boot steps have ended; bootErr is how
	bootErr   error
	done      chan struct{} // closed at the end
}

// join returns the job of a start of a distro, or the one that begins with run.
func (st *startSteps) join(ctx context.Context, id string, start int64, run func(context.Context, *stepsJob)) *stepsJob {
	st.mu.Lock()
	defer st.mu.Unlock()
	before := st.jobs[id]
	if before != nil && before.start == start {
		select {
		case <-before.done:
		default:
			return before
		}
	}
	j := &stepsJob{start: start, booted: make(chan struct{}), done: make(chan struct{})}
	if st.closed {
		j.bootErr = errStopping
		close(j.booted)
		close(j.done)
		return j
	}
	ctx, j.cancel = context.WithCancel(ctx)
	j.waiting, j.noWaiting = context.WithCancel(ctx)
	if st.jobs == nil {
		st.jobs = map[string]*stepsJob{}
	}
	st.jobs[id] = j
	st.wg.Go(func() {
		defer close(j.done)
		defer j.cancel()
		defer j.noWaiting()
		if before != nil { // of a start that is over
			before.cancel()
			<-before.done
		}
		run(ctx, j)
	})
	return j
}

// settle waits until no job of a distro is under way. One that waits for probes ends.
func (st *startSteps) settle(ctx context.Context, id string) error {
	st.mu.Lock()
	j := st.jobs[id]
	st.mu.Unlock()
	if j == nil {
		return nil
	}
	select {
	case <-j.booted:
		j.noWaiting()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends all jobs, and waits for their ends.
func (st *startSteps) close() {
	st.mu.Lock()
	st.closed = true
	for _, j := range st.jobs {
		j.cancel()
	}
	st.mu.Unlock()
	st.wg.Wait()
}

// stepTarget is a distro as the supervisor runs commands in it. One that does not run stays so.
type stepTarget struct {
	s *supervisor
	d *machine.Distro
}

func (t stepTarget) Exec(ctx context.Context, c provision.Command) (guest.Exit, error) {
	env := append(t.d.Env[:len(t.d.Env):len(t.d.Env)], c.Env...)
	req := &guestv1.Exec{Distro: t.d.Guest(), User: []byte(c.User), Login: c.Login}
	for _, word := range c.Argv {
		req.Argv = append(req.Argv, []byte(word))
	}
	for _, e := range env {
		req.Env = append(req.Env, []byte(e))
	}
	return t.s.client().Exec(ctx, req, guest.Stdio{Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Signals: c.Signals})
}

func (t stepTarget) Connect(ctx context.Context, port int) (net.Conn, error) {
	return t.s.client().ConnectNow(ctx, &guestv1.Connect{Distro: t.d.ID, Network: "tcp", Address: fmt.Sprintf("127.0.0.1:%d", port)})
}

// startSteps runs the steps that a request asks for. An error is of the request or the host;
// a step that fails is told of.
func (s *supervisor) startSteps(ctx context.Context, req *supervisorv1.StartDistroRequest, d *machine.Distro, start int64, p *profile.Profile, tell startEvents) error {
	var has []provision.Content
	want := p.Distro(d.Name)
	switch req.Steps {
	case stepsNone:
		return nil
	case stepsAll:
		// Before 'lsub up' has made the distro what the file says, its steps have nothing
		// to build on.
		if d.Up == nil || d.Up.Sum == "" || !hasStartSteps(want) {
			return nil
		}
	case stepsBoot, stepsReady:
		if err := s.steps.settle(ctx, d.ID); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%q are no steps of a start", req.Steps)
	}
	home, err := os.UserHomeDir()
	if err == nil {
		has, err = provision.Host{Dir: s.m.ProfileDir(), Home: home, Getenv: os.Getenv}.Steps(want.Provision, provision.AtStart)
	}
	if err != nil {
		if req.Steps == stepsAll {
			tell.warn(fmt.Sprintf("the steps of %s's start are not run: %v", d.Name, err))
			return nil
		}
		return err
	}
	runner := provision.Runner{Target: stepTarget{s, d}, Distro: d.Name}
	defer still(tell, "running the profile's "+cmp.Or(req.Steps, stepsBoot)+" steps in "+d.Name)()
	if req.Steps != stepsAll {
		runner.Tell = func(e provision.Event) {
			s.logStep(e)
			tell.step(stepMessage(e))
		}
		err := runner.Steps(ctx, profile.StepMode(req.Steps), want.Provision, has)
		var failed *provision.StepError
		if !errors.As(err, &failed) {
			return err
		}
		tell.step(&supervisorv1.Step{Event: string(provision.Failed), Name: failed.Name, At: failed.At,
			Status: int32(failed.Status), AfterNs: int64(failed.After), Last: failed.Last})
		return nil
	}
	runner.Tell = s.logStep
	job := s.steps.join(s.background, d.ID, start, func(ctx context.Context, j *stepsJob) {
		defer s.usage.begin(true)()
		s.runStart(ctx, j, runner, want, has)
	})
	select {
	case <-job.booted:
		if job.bootErr != nil && ctx.Err() == nil {
			tell.warn(fmt.Sprintf("%v; 'lsub logs --provision %s' has all", job.bootErr, d.Name))
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func hasStartSteps(d profile.Distro) bool {
	for _, s := range d.Provision {
		if provision.AtStart(s) {
			return true
		}
	}
	return false
}

// runStart runs the boot steps, waits for the probes, and runs the ready steps.
func (s *supervisor) runStart(ctx context.Context, j *stepsJob, r provision.Runner, want profile.Distro, has []provision.Content) {
	j.bootErr = r.Steps(ctx, profile.StepBoot, want.Provision, has)
	close(j.booted)
	err := j.bootErr
	if err == nil {
		for _, p := range want.Probes {
			if err = r.Await(j.waiting, p); err != nil {
				break
			}
		}
		if j.waiting.Err() != nil && ctx.Err() == nil {
			return // 'lsub up' goes on with it
		}
	}
	if err == nil {
		err = r.Steps(ctx, profile.StepReady, want.Provision, has)
	}
	if err == nil || ctx.Err() != nil || s.life.isStopping() {
		return
	}
	s.logStep(provision.Event{Type: provision.Failed, Distro: r.Distro, Kind: provision.KindStep, Text: err.Error()})
	s.log.Warn("not all of the profile's steps of a start have been run", "distro", r.Distro, "err", err)
}

// logStep notes what a step does.
func (s *supervisor) logStep(e provision.Event) {
	e.V, e.Time = provision.Version, time.Now().UTC()
	s.stepLog.Tell(e)
}

func stepMessage(e provision.Event) *supervisorv1.Step {
	return &supervisorv1.Step{Event: string(e.Type), Name: e.Name, Output: e.Text}
}

// still tells from time to time what is being done, so that the caller does not take the
// supervisor for dead. The caller calls end.
func still(tell startEvents, stage string) (end func()) {
	tell.stage(stage)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(stillEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				tell.stage(stage)
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}
