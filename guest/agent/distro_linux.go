package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/agent/distroinit"
	"github.com/lsub/lsub/guest/agent/nsthread"
	"github.com/lsub/lsub/guest/guestv1"
)

const (
	readyTimeout = 60 * time.Second // until its systemd lets commands in
	stopGrace    = 30 * time.Second // until a distro that stops is killed
	hangUpGrace  = 5 * time.Second  // until the sessions of one that stops are
)

// distro is a distro that runs, starts or stops. It is made by [Agent.start],
// and forgotten by the agent when its PID 1 is gone.
type distro struct {
	a    *Agent
	spec *guestv1.Distro

	// networked is closed when its network stands, or err says why not.
	networked chan struct{}
	ready     chan struct{} // closed when commands may enter, or err says why not
	// starting ends with the start, and when somebody gives the start up: see cancelStart.
	starting    context.Context
	cancelStart context.CancelFunc
	gone        chan struct{} // closed when nothing of it is left
	// reconfigured is sent to when the idle time has changed.
	reconfigured chan struct{}
	err          error // of the start

	// Set before ready is closed.
	pid       int
	init      string
	startedAt time.Time
	address   netip.Addr // of an isolated one; guarded by Agent.mu
	group     *cgroup.Group
	console   *console
	readyDir  *os.File // where its init says that it is ready
	unwatch   func()   // ends the watch of its limits; nil where there is none

	wasReady atomic.Bool // its init has been ready, see shutsDown
	hangs    atomic.Bool // its init takes too long to shut it down, see awaitShutdown

	mu        sync.Mutex
	limits    *guestv1.Limits
	thread    *nsthread.Thread // in its namespaces; replaced where it hangs
	netns     *netns           // nil where it has the VM's network
	stopping  bool
	idle      time.Duration // as Distro.idle_ns says it
	idleSince time.Time     // zero while it is busy, or in use
	warnings  []string      // about the distro's own files, until somebody has been told
	sessions  int
	forwards  int                      // connections that are forwarded to it
	users     map[uint32]chan struct{} // user managers asked for; closed when up
	sysctls   map[string]string        // the kernel settings that it makes for all distros
	shown     map[string]bool          // shares, by path, that are at the same path as on the host too
}

// lookup returns a distro that runs, starts or stops, or nil.
func (a *Agent) lookup(id string) *distro {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.distros[id]
}

// start returns the distro when commands may enter it, starting it where it
// does not run. ctx bounds the wait, not the start.
func (a *Agent) start(ctx context.Context, spec *guestv1.Distro) (*distro, error) {
	if err := checkDistro(spec); err != nil {
		return nil, err
	}
	for {
		if err := a.lockFilesFree(ctx, spec.Id); err != nil {
			return nil, err
		}
		d := a.distros[spec.Id]
		if d == nil {
			if a.stopping {
				a.mu.Unlock()
				return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_START_FAILED, "", "the VM is shutting down")
			}
			if !a.store.HasDistro(spec.Id) {
				a.mu.Unlock()
				return nil, guest.NoDistro(spec.Name)
			}
			d = &distro{
				a: a, spec: spec, networked: make(chan struct{}), ready: make(chan struct{}), gone: make(chan struct{}), reconfigured: make(chan struct{}, 1),
				users: map[uint32]chan struct{}{}, idle: time.Duration(spec.IdleNs), limits: spec.Limits,
			}
			d.starting, d.cancelStart = context.WithCancel(context.Background())
			a.distros[spec.Id] = d
			a.notifyChange()
			go d.run()
		}
		a.mu.Unlock()
		wait := d.ready
		if d.isStopping() {
			wait = d.gone
		}
		if err := await(ctx, wait); err != nil {
			return nil, err
		}
		if wait == d.gone || d.err == nil && d.awaitShutdown(ctx) {
			continue
		}
		return d, d.err
	}
}

func (d *distro) isStopping() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopping
}

// title is the distro's name as its user spells it.
func (d *distro) title() string { return cmp.Or(d.spec.Title, d.spec.Name) }

// currentThread returns the namespace thread, nil where there is none yet.
func (d *distro) currentThread() *nsthread.Thread {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.thread
}

// replaceThread gives the distro another namespace thread in place of one that hangs.
func (d *distro) replaceThread(stuck *nsthread.Thread) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.thread != stuck || d.stopping {
		return // somebody else did, or nobody needs one
	}
	thread, err := nsthread.Enter(d.pid)
	if err != nil {
		d.a.log.Warn("no new namespace thread for a distro that hangs", "distro", d.spec.Name, "err", err)
		return
	}
	stuck.Close()
	d.thread = thread
}

func (d *distro) state() *guestv1.DistroState {
	s := &guestv1.DistroState{Id: d.spec.Id}
	select {
	case <-d.ready:
		if d.err != nil {
			return s
		}
	default:
		return s
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Running, s.Init, s.Sessions, s.Stopping = true, d.init, int32(d.sessions), d.stopping
	s.StartedAtNs, s.Address = d.startedAt.UnixNano(), d.netns.address()
	if !d.idleSince.IsZero() {
		s.IdleSinceNs = d.idleSince.UnixNano()
	}
	return s
}

// takeWarnings returns the warnings that nobody has been told yet.
func (d *distro) takeWarnings() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.warnings
	d.warnings = nil
	return w
}

// run is the distro's life.
func (d *distro) run() {
	log := d.a.log.With("distro", d.spec.Name)
	defer d.cancelStart()
	d.startedAt = time.Now()
	var cmd *exec.Cmd
	err := d.openNetwork()
	if err == nil {
		cmd, err = d.boot()
	}
	if err == nil {
		log.Info("distro started", "init", d.init, "pid", d.pid, "took", time.Since(d.startedAt))
	} else {
		if why := d.whyKilled(cgroup.Pressure{}, d.group.Pressure()); why != "" {
			err = fmt.Errorf("%w: %s", err, why)
		}
		log.Error("distro does not start", "err", err)
		advice := ""
		if strings.Contains(err.Error(), unix.ENOEXEC.Error()) { // as its PID 1 has said it
			advice = guest.EmulatorAdvice
		}
		d.err = guest.Errorf(guestv1.ErrorCode_ERROR_CODE_START_FAILED, advice, "start distro %s: %v", d.spec.Name, err)
		d.mu.Lock()
		d.stopping = true // later ones wait until it is gone, and try again
		d.mu.Unlock()
	}
	if cmd != nil && err == nil {
		d.mu.Lock()
		if !d.busy() {
			d.idleSince = time.Now()
		}
		d.mu.Unlock()
		close(d.ready)
		go d.watchIdle()
		d.logOverruled()
		cmd.Wait()
		log.Info("distro ended", "status", cmd.ProcessState.String())
	}
	d.cleanUp(cmd)
	d.a.mu.Lock()
	delete(d.a.distros, d.spec.Id)
	d.a.notifyChange()
	d.a.mu.Unlock()
	if err != nil {
		close(d.ready)
	}
	close(d.gone)
}

// cleanUp removes what is left of the distro when its PID 1 is gone, or ends it
// where its start failed.
func (d *distro) cleanUp(cmd *exec.Cmd) {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	if d.group != nil {
		d.kill()
	}
	if cmd != nil && cmd.ProcessState == nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if t := d.currentThread(); t != nil {
		t.Close()
	}
	if d.console != nil {
		d.console.close()
	}
	if d.readyDir != nil {
		d.readyDir.Close()
	}
	if d.unwatch != nil {
		d.unwatch()
	}
	d.closeNetns()
	if d.group != nil {
		if err := d.group.Remove(); err != nil {
			d.a.log.Warn("remove a distro's cgroup", "distro", d.spec.Name, "err", err)
		}
	}
}

// openNetwork gives the distro its network, which the VM's is where it is not
// isolated.
func (d *distro) openNetwork() error {
	defer close(d.networked)
	if !d.spec.Isolated {
		return nil
	}
	return d.openNetns()
}

// boot starts the distro's init in namespaces of its own, and returns when
// commands may enter. cleanUp removes what it leaves half-made.
func (d *distro) boot() (cmd *exec.Cmd, err error) {
	if err := restoreDevices(); err != nil {
		return nil, err
	}
	if d.group, err = cgroup.New(d.spec.Id, d.spec.Limits); err != nil {
		return nil, err
	}
	if d.unwatch, err = d.watchLimits(); err != nil {
		d.a.log.Warn("what a distro does at its limits is not logged", "distro", d.spec.Name, "err", err)
	}
	if d.console, err = openConsole(); err != nil {
		return nil, err
	}
	cmd, status, err := d.startInit()
	if err != nil {
		return nil, err
	}
	defer status.Close()
	d.pid = cmd.Process.Pid
	defer context.AfterFunc(d.starting, func() { cmd.Process.Kill() })()
	report, err := distroinit.AwaitReport(status)
	if err != nil {
		return cmd, d.withConsole(err)
	}
	d.init = report.Init
	d.mu.Lock()
	d.warnings = report.Warnings
	d.mu.Unlock()
	thread, err := nsthread.Enter(d.pid)
	if err != nil {
		return cmd, err
	}
	d.mu.Lock()
	d.thread = thread
	d.mu.Unlock()
	var reading sync.WaitGroup
	if d.init == distroinit.Systemd {
		reading.Go(d.readSysctls)
	}
	defer reading.Wait()
	d.showShares()
	if err := d.awaitReady(cmp.Or(report.Timeout, readyTimeout)); err != nil {
		return cmd, d.withConsole(err)
	}
	return cmd, nil
}

// startInit starts the process that becomes the distro's PID 1, and returns the socket on
// which it reports.
func (d *distro) startInit() (*exec.Cmd, *os.File, error) {
	cfg := distroinit.Config{
		Root: d.a.store.DistroPath(d.spec.Id), Hostname: d.spec.Name,
		Modules: d.a.cfg.Modules, Console: d.console.path, Timezone: d.spec.Timezone, Env: d.spec.Env, Shared: d.a.cfg.Shared, Host: d.a.cfg.Host, Tools: d.a.cfg.Tools,
	}
	if dns := d.a.cfg.Network.Gateway; dns.IsValid() {
		cfg.DNS, cfg.Search = dns.String(), d.a.cfg.Search
	}
	// A process is in the network namespace of the thread that starts it.
	return distroinit.Start(cfg, d.group.FD(), d.ownNetns().do)
}

func (d *distro) withConsole(err error) error {
	if tail := d.console.tail(); tail != "" {
		return fmt.Errorf("%w; its console said:\n%s", err, tail)
	}
	return err
}

// killWait is how long the processes of a distro may take to be gone once they are killed. A
// device or a file system that hangs may keep them for ever.
const killWait = 20 * time.Second

// kill ends every process of the distro.
func (d *distro) kill() {
	if err := d.group.Kill(); err != nil {
		d.a.log.Error("the processes of a distro cannot be killed", "distro", d.spec.Name, "err", err)
	}
}

// awaitGone waits until nothing of the distro is left, but not for ever.
func (d *distro) awaitGone() {
	select {
	case <-d.gone:
	case <-time.After(killWait):
		d.a.log.Error("a distro that was killed is still there", "distro", d.spec.Name, "after", killWait)
	}
}

// started waits until the distro is up or has failed to start, for so long at most.
func (d *distro) started(patience time.Duration) bool {
	select {
	case <-d.ready:
		return true
	case <-d.gone:
		return true
	default:
	}
	select {
	case <-d.ready:
	case <-d.gone:
	case <-time.After(patience):
		return false
	}
	return true
}

// stop shuts the distro down and waits until nothing of it is left; it tells
// whether it had to kill. With no grace it kills at once. Nothing that the distro says
// makes it wait longer: a start that takes longer than the grace is given up.
func (d *distro) stop(grace time.Duration) (killed bool) {
	begin := time.Now()
	if !d.started(grace) {
		d.a.log.Warn("a distro is not up when it is to stop; kill it", "distro", d.spec.Name)
		d.cancelStart()
		if !d.started(killWait) {
			d.a.log.Error("the start of a distro does not end", "distro", d.spec.Name, "after", killWait)
			return true
		}
	}
	if d.err != nil { // it did not start: it ends by itself
		d.awaitGone()
		return false
	}
	if grace > 0 {
		grace = max(grace-time.Since(begin), time.Second)
	}
	d.mu.Lock()
	first := !d.stopping
	d.stopping = true
	d.mu.Unlock()
	select {
	case <-d.gone:
		return false
	default:
	}
	if !first && grace > 0 { // another one ends it
		select {
		case <-d.gone:
			return false
		case <-time.After(grace):
			// The other's grace may be longer.
		}
		grace = 0
	}
	return d.end(grace)
}

// end shuts down a distro that is marked as stopping.
func (d *distro) end(grace time.Duration) (killed bool) {
	if grace <= 0 {
		d.kill()
		d.awaitGone()
		return true
	}
	d.a.log.Info("stop distro", "distro", d.spec.Name, "grace", grace)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	go d.endSessions(min(grace, hangUpGrace))
	if d.init == distroinit.Systemd {
		unix.Kill(d.pid, distroinit.SigPowerOff)
	}
	select {
	case <-d.gone:
		return false
	case <-timer.C:
	}
	d.a.log.Warn("distro does not stop; kill it", "distro", d.spec.Name)
	d.kill()
	d.awaitGone()
	return true
}

// endSessions asks the commands to end, and kills those that stay: systemd
// would wait 90 seconds for them. A tiny init has nothing but sessions, so it ends
// when they have.
func (d *distro) endSessions(grace time.Duration) {
	if d.init == distroinit.Tiny {
		unix.Kill(d.pid, unix.SIGTERM) // passed on to all processes
	}
	d.group.HangUpSessions()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if d.group.AwaitNoSessions(ctx) != nil {
		d.group.KillSessions()
	}
	if d.init == distroinit.Tiny {
		unix.Kill(d.pid, unix.SIGKILL)
	}
}
