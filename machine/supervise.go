package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

// GuestFiles are what the VM boots.
type GuestFiles struct {
	Kernel, Initrd string
	System         string // image of the system disk
}

// Network carries the frames of the VM's network card. A VM has one for its
// whole life.
type Network interface {
	// Serve moves frames until conn fails or ctx is done.
	Serve(ctx context.Context, conn net.Conn, framing virtionet.Framing) error
	// Attach takes the place of Serve where the hypervisor hands a card over. It is
	// called for each VM, before its guest runs.
	Attach(card virtionet.Card) virtionet.Receiver
	// BootArgs says how the guest sets its card up.
	BootArgs() guest.BootArgs
	// MAC is the address of the guest's card.
	MAC() net.HardwareAddr
}

// Forwarder opens ports of the distros on the host, and of the host in distros.
type Forwarder interface {
	// Run forwards until ctx is done, and closes what it opened.
	Run(ctx context.Context, c *guest.Client) error
	// Ports tells what is forwarded, and returns what is closed when that changes.
	Ports() (ports []*guestv1.Port, changed <-chan struct{})
}

// Supervision is what a supervisor needs besides its machine's [Config].
type Supervision struct {
	Config
	Driver  hypervisor.Driver
	Guest   func(ctx context.Context) (GuestFiles, error) // makes the files ready; they are not changed
	Network func() (Network, error)                       // nil for a VM without a network
	// Forwarder is nil for a VM whose ports stay its own.
	Forwarder Forwarder
	CPUs      int
	Memory    int64 // bytes
	// Idle is how long the VM runs on with no distro running and nobody using
	// it; 0 means [DefaultIdle], below 0 for ever.
	Idle time.Duration
	// DistroIdle is how long a distro that says nothing itself may be idle
	// before it is stopped; 0 means five minutes, below 0 for ever.
	DistroIdle time.Duration
	// DistroEnv is the environment of the services of distros that start with the VM.
	DistroEnv []string
	// BootTimeout bounds the boot; 0 means two minutes.
	BootTimeout time.Duration
	// Reporter is told how the start goes; nil where nobody waits.
	Reporter *Reporter
}

// stopGrace is how long a supervisor that is told to end (SIGTERM, as when the
// host shuts down) waits for the VM to shut down before it cuts the power.
const stopGrace = 60 * time.Second

// supervisor is one run of [Supervise].
type supervisor struct {
	Supervision
	m     *Machine
	log   *slog.Logger
	rec   record
	trace trace

	// Both may be read once ready is closed: by then one of them is set.
	vm    hypervisor.VM
	err   error // why the VM did not come up
	ready chan struct{}

	cutStart context.CancelFunc // ends a start that is under way

	vmGone chan struct{} // closed when the VM has ended; then vmErr says how
	vmErr  error
	closed chan struct{} // closed when the record of the end is written

	mu       sync.Mutex
	gone     bool      // the VM has ended, or never came up
	asked    int       // how many have asked for the end of the VM, and were not refused
	forced   bool      // its power was cut
	work     int       // how many use the guest
	worked   int       // how many have begun to, ever
	lastWork time.Time // when the last of them was done

	tunnels  tunnels
	starting sync.WaitGroup // distros that start with the VM
}

// Supervise runs the VM of a profile and returns when it is gone: nil after a
// shutdown, else why it ended or could not start. When ctx is done, it shuts
// the VM down. Where a supervisor of the profile runs already, there is nothing to do.
func Supervise(ctx context.Context, cfg Supervision) error {
	m, err := Open(cfg.Config)
	if err == nil {
		err = m.makeDir()
	}
	if err != nil {
		cfg.Reporter.finish(err)
		return err
	}
	if cfg.BootTimeout == 0 {
		cfg.BootTimeout = bootTimeout
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	s := &supervisor{
		Supervision: cfg, m: m, log: m.cfg.Logger, trace: trace{begin: time.Now()},
		ready: make(chan struct{}), vmGone: make(chan struct{}), closed: make(chan struct{}),
	}
	l, err := s.takeOver(ctx)
	if err != nil || l == nil {
		cfg.Reporter.finish(err)
		return err
	}
	defer l.unlock()
	err = s.run(ctx)
	cfg.Reporter.finish(err) // where the start failed; else it has been finished
	return err
}

// takeOver waits until the supervisor before this one has ended. The lock is
// nil where it has no mind to.
func (s *supervisor) takeOver(ctx context.Context) (*fileLock, error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverTimeout)
	defer cancel()
	path := s.m.path("supervisor.lock")
	for {
		round, cancel := context.WithTimeout(ctx, time.Second)
		l, err := lock(round, path)
		cancel()
		switch {
		case err == nil:
			return l, nil
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		case ctx.Err() != nil:
			return nil, hint.New(errors.New("the supervisor before this one does not end"), "'lsub shutdown --force' ends it")
		}
		s.Reporter.stage("waiting for the last VM to end")
		if st, err := s.m.Status(ctx); err == nil && !st.Stopping {
			return nil, nil
		}
	}
}

// run serves the socket, and behind it the VM from start to end.
func (s *supervisor) run(ctx context.Context) error {
	ln, err := s.listen()
	if err != nil {
		return err
	}
	if text := s.m.readRecord().lastEnd(); text != "" {
		s.Reporter.note(text)
		s.log.Warn(text)
	}
	s.rec = record{Lsub: s.Version, PID: os.Getpid(), Socket: ln.Addr().String(), Started: s.trace.begin.UTC()}
	if err := s.m.writeRecord(&s.rec); err != nil {
		ln.Close()
		return err
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: answerTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	starting, cut := context.WithCancel(ctx)
	defer cut()
	s.cutStart = cut
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()

	s.vm, s.err = s.start(starting)
	if s.err != nil { // before anybody hears of it, who may try again at once
		s.mu.Lock()
		s.gone = true
		s.mu.Unlock()
	}
	close(s.ready)
	s.Reporter.finish(s.err)
	err = s.err
	if err == nil {
		s.log.Info("the VM is up", "took", s.trace.total())
		s.mu.Lock()
		s.lastWork = time.Now()
		s.mu.Unlock()
		tending, untend := context.WithCancel(ctx)
		var tended sync.WaitGroup
		tended.Go(func() { s.tend(tending) })
		tended.Go(func() { s.keepClock(tending) })
		if s.Forwarder != nil {
			tended.Go(func() {
				dialer := guest.NewWarm(s.vm)
				defer dialer.Close()
				if err := s.Forwarder.Run(tending, guest.NewClient(dialer, s.Version)); err != nil {
					s.log.Error("nothing is forwarded any more", "err", err)
				}
			})
		}
		err = s.supervise(ctx)
		untend()
		tended.Wait()
		s.starting.Wait()
	}
	s.end(err)
	ln.Close() // removes the socket
	close(s.closed)
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

// supervise waits until the VM has ended, by itself or because ctx is done.
func (s *supervisor) supervise(ctx context.Context) error {
	select {
	case <-s.vmGone:
	case <-ctx.Done():
		s.log.Info("told to end")
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if err := s.shutdown(grace, false); err != nil {
			s.log.Warn("the VM does not shut down; its power is cut", "err", err)
			s.shutdown(grace, true)
		}
		<-s.vmGone
	}
	return s.vmErr
}

// end records how the VM ended.
func (s *supervisor) end(err error) {
	s.mu.Lock()
	s.gone = true
	asked := s.asked > 0
	s.rec.Forced = s.forced
	s.mu.Unlock()
	s.rec.Ended = time.Now().UTC()
	s.rec.Clean = err == nil || asked || s.err != nil // a start that failed was reported
	if err != nil {
		s.rec.Reason = err.Error()
	}
	if err := s.m.writeRecord(&s.rec); err != nil {
		s.log.Error("the end is not recorded", "err", err)
	}
	s.log.Info("the VM is gone", "err", err)
}

// listen opens the profile's socket in place of one that a supervisor left
// which was killed: this one holds the lock.
func (s *supervisor) listen() (net.Listener, error) {
	dir, err := s.m.runtimeDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the profile's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}
