// Package supervisor is the background process that holds a profile's VM: one
// for each VM that runs. It boots the VM, serves the profile's socket, carries
// streams and calls to the guest, forwards ports, keeps the guest's clock, and
// shuts an idle VM down. [Run] returns when the VM is gone:
//
//	cfg, err := supervisor.Setup{
//		Config: machineConfig, Driver: newDriver, Guest: guestFiles, Network: true,
//	}.Load(ctx)
//	if err != nil {
//		return err
//	}
//	return supervisor.Run(ctx, cfg)
//
// Package machine finds or starts this process, and is the client of its socket.
package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"

	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// GuestFiles are what the VM boots.
type GuestFiles struct {
	Kernel, Initrd string
	System         string // image of the system disk
}

// Forwarder is the service that opens ports of the distros on the host, and of the
// host in distros. What it has opened is closed when its Run returns.
type Forwarder interface {
	Service
	// Ports tells what is forwarded, and returns what is closed when that changes.
	Ports() (ports []*supervisorv1.Port, changed <-chan struct{})
}

// Config is what a supervisor needs besides the configuration of its machine.
type Config struct {
	machine.Config
	Driver  hypervisor.Driver
	Guest   func(ctx context.Context) (GuestFiles, error) // makes the files ready; they are not changed
	Network func() (Network, error)                       // nil for a VM without a network
	// Cardless has the guest make its network card itself, also where the driver has one.
	Cardless bool
	// Forwarder is nil for a VM whose ports stay its own.
	Forwarder Forwarder
	CPUs      int
	Memory    int64 // bytes
	Nested    bool  // the VM can run VMs itself
	// Idle is how long the VM runs on with no distro running and nobody using
	// it; 0 means [DefaultIdle], below 0 for ever.
	Idle time.Duration
	// DistroIdle is how long a distro that says nothing itself may be idle
	// before it is stopped; 0 means five minutes, below 0 for ever.
	DistroIdle time.Duration
	// DistroEnv is the environment of the services of distros that start with the VM.
	DistroEnv []string
	// Shares returns the directories that the VM shares with its distros; nil for a VM that
	// shares none, ever.
	Shares func() ([]machine.Share, error)
	// ShareServer is the command that serves a share: the path of a program and its
	// arguments, which end in [shareproc.Main].
	ShareServer []string
	Settings    map[string]string // goes into the record
	// BootTimeout bounds the boot; 0 means two minutes.
	BootTimeout time.Duration
	// Reporter is told how the start goes; nil where nobody waits.
	Reporter *machine.Reporter
}

// stopGrace is how long a supervisor that is told to end (SIGTERM, as when the
// host shuts down) waits for the VM to shut down before it cuts the power.
const stopGrace = 60 * time.Second

// supervisor is one run of [Run].
type supervisor struct {
	Config
	m     *machine.Machine
	log   *slog.Logger
	rec   machine.Record
	trace trace

	life  *life
	usage usage

	// Both may be read once the VM does not boot any more: then one of them is set.
	vm  guestIO
	err error // why the VM did not come up

	cutStart context.CancelFunc // ends a start that is under way
	vmErr    error              // how the VM has ended; may be read once it is gone
	forced   atomic.Bool        // its power was cut

	tunnels tunnels
	starts  starts
	steps   startSteps
	stepLog *provision.Log
	// background is done when the VM is gone.
	background context.Context
	shares     *shares
}

// Run runs the VM of a profile and returns when it is gone: nil after a
// shutdown, else why it ended or could not start. When ctx is done, it shuts
// the VM down. Where a supervisor of the profile runs already, there is nothing to do.
func Run(ctx context.Context, cfg Config) error {
	m, err := machine.Open(cfg.Config)
	if err == nil {
		err = m.MakeDir()
	}
	if err != nil {
		cfg.Reporter.Finish(err)
		return err
	}
	if cfg.BootTimeout == 0 {
		cfg.BootTimeout = machine.BootTimeout
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	s := &supervisor{
		Config: cfg, m: m, log: m.Config().Logger, trace: trace{begin: time.Now()},
		life: newLife(),
	}
	s.shares = newShares(s)
	unlock, err := s.takeOver(ctx)
	if err != nil || unlock == nil {
		cfg.Reporter.Finish(err)
		return err
	}
	defer unlock()
	err = s.run(ctx)
	cfg.Reporter.Finish(err) // where the start failed; else it has been finished
	return err
}

// takeOver waits until the supervisor before this one has ended. The lock is
// nil where it has no mind to.
func (s *supervisor) takeOver(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, machine.TakeoverTimeout)
	defer cancel()
	for {
		round, cancel := context.WithTimeout(ctx, time.Second)
		unlock, err := s.m.LockSupervisor(round)
		cancel()
		switch {
		case err == nil:
			return unlock, nil
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		case ctx.Err() != nil:
			return nil, hint.New(errors.New("the supervisor before this one does not end"), "'lsub shutdown --force' ends it")
		}
		s.Reporter.Stage("waiting for the last VM to end")
		if st, err := s.m.Status(ctx); err == nil && !st.Stopping {
			return nil, nil
		}
	}
}

// run serves the socket, and behind it the VM from start to end.
func (s *supervisor) run(ctx context.Context) error {
	ln, err := s.m.Listen()
	if err != nil {
		return err
	}
	if text := s.m.Record().LastEnd(); text != "" {
		s.Reporter.Note(text)
		s.log.Warn(text)
	}
	s.rec = machine.Record{Lsub: s.Version, PID: os.Getpid(), Socket: ln.Addr().String(), Started: s.trace.begin.UTC(), Settings: s.Settings}
	if err := s.m.WriteRecord(&s.rec); err != nil {
		ln.Close()
		return err
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: answerTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s.background, s.stepLog = background, provision.NewLog(s.m.ProvisionLog())
	defer s.stepLog.Close()
	defer s.steps.close()
	starting, cut := context.WithCancel(ctx)
	defer cut()
	s.cutStart = cut
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()

	s.vm, s.err = s.start(starting)
	if err = s.err; err != nil {
		s.life.enter(gone) // before anybody hears of it, who may try again at once
		s.Reporter.Finish(err)
	} else {
		s.usage.touch()
		s.life.enter(running)
		s.log.Info("the VM is up", "took", s.trace.total())
		s.Reporter.Finish(nil)
		err = s.supervise(ctx)
	}
	s.steps.close()
	s.end(err)
	ln.Close() // removes the socket
	s.m.RemoveRuntimeDir()
	s.life.enter(closed)
	s.tunnels.close()

	// Whoever asked for the end or waited for the start still gets the answer.
	last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if server.Shutdown(last) != nil {
		server.Close()
	}
	<-served
	return err
}

// services are what a VM has for its whole life.
func (s *supervisor) services() []Service {
	all := []Service{autostart{s}, idle{s}, clock{s.log}, logs{s}}
	if s.Forwarder != nil {
		all = append(all, s.Forwarder)
	}
	if s.Shares != nil {
		all = append(all, s.shares)
	}
	return all
}

// supervise runs the services until the VM has ended, by itself or because ctx is done.
func (s *supervisor) supervise(ctx context.Context) error {
	go func() {
		s.vmErr = s.vm.Wait()
		s.life.enter(gone)
	}()
	serving, cancel := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.runServices(serving, s.services())
	}()
	select {
	case <-s.life.after(gone):
	case <-ctx.Done():
		s.log.Info("told to end")
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if err := s.shutdown(grace, false); err != nil {
			s.log.Warn("the VM does not shut down; its power is cut", "err", err)
			s.shutdown(grace, true)
		}
		<-s.life.after(gone)
	}
	cancel()
	<-served
	return s.vmErr
}

// end records how the VM ended.
func (s *supervisor) end(err error) {
	s.rec.Forced = s.forced.Load()
	s.rec.Ended = time.Now().UTC()
	s.rec.Clean = err == nil || s.life.wasAsked() || s.err != nil // a start that failed was reported
	if err != nil {
		s.rec.Reason = err.Error()
	}
	if err := s.m.WriteRecord(&s.rec); err != nil {
		s.log.Error("the end is not recorded", "err", err)
	}
	s.log.Info("the VM is gone", "err", err)
}
