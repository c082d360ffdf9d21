package vz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

var (
	_ hypervisor.VM        = (*vm)(nil)
	_ hypervisor.Paused    = (*vm)(nil)
	_ hypervisor.Pauser    = (*vm)(nil)
	_ hypervisor.Balloon   = (*vm)(nil)
	_ hypervisor.Described = (*vm)(nil)
	_ hypervisor.VM        = (*savingVM)(nil)
	_ hypervisor.Saver     = (*savingVM)(nil)
)

const (
	// stopTimeout bounds how long the framework may take to cut the power.
	stopTimeout = 30 * time.Second
	// stateTimeout bounds the time between an operation's end and the state that it leads to.
	stateTimeout = 5 * time.Second
)

var (
	// errMacPaused is why a VM stands still that nobody has paused.
	errMacPaused = hint.New(errors.New("macOS has paused the VM, as it does while the Mac sleeps"),
		"it goes on when the Mac is awake")
	// errKilled is how a VM ended whose process is gone.
	errKilled = hint.New(errors.New("macOS has ended the VM: its process was killed, or has failed"),
		`see why with 'log show --last 5m --predicate "subsystem == \"com.apple.Virtualization\""'`)
)

// vm is a VM of the framework.
type vm struct {
	cfg     *hypervisor.Config
	facts   Facts
	log     *slog.Logger
	machine Machine
	nic     net.Conn // our end of the network card's frames; nil for none
	sockets sockets

	alive context.Context // done when the VM ends or Close begins
	end   context.CancelFunc
	wg    sync.WaitGroup // goroutines other than watch
	done  chan struct{}  // closed when everything has ended

	closeOnce sync.Once
	closeErr  error      // of Close
	power     sync.Mutex // held while the framework pauses, resumes or saves
	held      bool       // our owner has paused it; written with both locks

	mu      sync.Mutex
	closed  bool          // Close was called
	state   State         // the last that the framework has told
	changed chan struct{} // closed and replaced at each change of state or held
	err     error         // of Wait; read it after done
}

// savingVM is a VM that can be saved. Others lack the method.
type savingVM struct {
	*vm
	saving Saving
}

func newVM(cfg *hypervisor.Config, f Facts, log *slog.Logger) *vm {
	v := &vm{cfg: cfg, facts: f, log: log, done: make(chan struct{}), changed: make(chan struct{})}
	v.alive, v.end = context.WithCancel(context.Background())
	v.sockets.init(v)
	return v
}

// abandon ends a VM whose start has failed before watch began.
func (v *vm) abandon() {
	v.end()
	v.release()
}

// begin takes a new machine to running processors, or to the pause in which it was saved.
func (v *vm) begin(ctx context.Context, saved string) error {
	started := make(chan error, 1)
	go func() {
		if saved == "" {
			started <- v.machine.Start()
		} else if s, ok := v.machine.(Saving); ok {
			started <- s.Restore(saved)
		} else {
			started <- ErrUnavailable
		}
	}()
	stop := func() {
		if err := v.machine.Stop(); err != nil {
			v.log.Debug("a VM that did not start is not stopped", "err", err)
		}
	}
	select {
	case err := <-started:
		if err == nil {
			err = context.Cause(ctx)
			if err != nil {
				stop()
			}
		}
		if err != nil {
			return explain(err)
		}
	case <-ctx.Done():
		// Nothing interrupts the framework. Its machine is stopped once it has started.
		go func() {
			if err := <-started; err == nil {
				stop()
			}
		}()
		return context.Cause(ctx)
	}
	v.held, v.state = saved != "", StateRunning
	if v.held {
		v.state = StatePaused
	}
	v.log.Debug("the VM runs", "macos", v.facts.Version)
	if v.nic != nil {
		v.wg.Go(v.serveNIC)
	}
	go v.watch()
	return nil
}

// watch follows the machine's states until it is gone, and cleans up after it.
func (v *vm) watch() {
	for {
		s := <-v.machine.States()
		v.log.Debug("the framework says", "state", s)
		v.mu.Lock()
		v.state = s
		v.wake()
		unasked := s == StatePaused && !v.held
		v.mu.Unlock()
		if s == StateStopped || s == StateError {
			v.finish(s)
			return
		}
		if unasked {
			v.wg.Go(v.goOn)
		}
	}
}

// wake tells those who wait for a change. The caller holds mu.
func (v *vm) wake() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// finish records how the VM ended.
func (v *vm) finish(s State) {
	v.end()
	v.release()
	v.mu.Lock()
	if s == StateError && !v.closed {
		v.err = fmt.Errorf("VM %s: %w", v.cfg.Name, errKilled)
		v.log.Error("the VM has died", "err", v.err)
	}
	v.mu.Unlock()
	close(v.done)
}

// release closes what belongs to a VM that does not run.
func (v *vm) release() {
	v.sockets.close()
	if v.nic != nil {
		v.nic.Close()
	}
	v.wg.Wait()
}

// goOn resumes a VM that macOS has paused by itself. While the Mac sleeps, this process
// sleeps too.
func (v *vm) goOn() {
	v.power.Lock()
	defer v.power.Unlock()
	if v.alive.Err() != nil || v.held || v.now() != StatePaused {
		return
	}
	if err := v.machine.Resume(); err != nil && !isWrongState(err) {
		v.log.Error("the VM that macOS has paused does not go on", "err", explain(err))
	}
}

func (v *vm) now() State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state
}

// openNIC makes the pair of sockets for the card's frames.
func (v *vm) openNIC(s *Settings) error {
	ours, theirs, err := datagramPair()
	if err != nil {
		return fmt.Errorf("sockets for the network card: %w", err)
	}
	v.nic, s.Card.File = ours, theirs
	return nil
}

// serveNIC passes the card's frames to the network as long as the VM lives.
func (v *vm) serveNIC() {
	defer v.nic.Close()
	if err := v.cfg.NIC.Serve(v.alive, v.nic, virtionet.Datagram); v.alive.Err() == nil {
		v.log.Error("the network of the VM has failed; it is cut off", "err", err)
	}
}

// Description returns the version of macOS.
func (v *vm) Description() string {
	return "Virtualization.framework of macOS " + v.facts.Version
}

// Paused returns why the VM stands still; nil if it runs.
func (v *vm) Paused() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.held:
		return hypervisor.ErrPaused
	case v.state == StatePaused || v.state == StatePausing:
		return errMacPaused
	}
	return nil
}

// Pause halts the guest's processors.
func (v *vm) Pause(ctx context.Context) error { return v.setHeld(ctx, true) }

// Resume lets the guest go on.
func (v *vm) Resume(ctx context.Context) error { return v.setHeld(ctx, false) }

// setHeld pauses or resumes the machine for the VM's owner. The framework cannot be
// interrupted: when ctx ends first, it goes on by itself.
func (v *vm) setHeld(ctx context.Context, held bool) error {
	what := "resume"
	if held {
		what = "pause"
	}
	return v.ask(ctx, what, func() error {
		if v.held == held {
			return nil
		}
		// While held is set, watch does not take a pause for one of macOS.
		if !held {
			if err := v.machine.Resume(); err != nil {
				return err
			}
			v.awaitState(StateRunning)
			v.hold(false)
			return nil
		}
		v.hold(true)
		if err := v.machine.Pause(); err != nil {
			v.hold(false)
			return err
		}
		v.awaitState(StatePaused)
		return nil
	})
}

func (v *vm) hold(held bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = held
	v.wake()
}

// awaitState waits until watch has seen a state that the framework has reached.
func (v *vm) awaitState(want State) {
	timeout := time.After(stateTimeout)
	for {
		v.mu.Lock()
		reached, changed := v.state == want, v.changed
		v.mu.Unlock()
		if reached {
			return
		}
		select {
		case <-changed:
		case <-v.alive.Done():
			return
		case <-timeout:
			v.log.Warn("the framework has not told of a state", "state", want)
			return
		}
	}
}

// ask runs a request to the framework, one at a time.
func (v *vm) ask(ctx context.Context, what string, request func() error) error {
	fail := func(err error) error { return fmt.Errorf("%s the VM %s: %w", what, v.cfg.Name, err) }
	if err := ctx.Err(); err != nil {
		return fail(context.Cause(ctx))
	}
	answered := make(chan error, 1)
	go func() {
		v.power.Lock()
		defer v.power.Unlock()
		if v.alive.Err() != nil {
			answered <- net.ErrClosed
			return
		}
		err := explain(request())
		if err != nil && v.alive.Err() != nil {
			err = net.ErrClosed
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			return fail(err)
		}
		return nil
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
}

// SetMemory sets the size that the balloon leaves to the guest.
func (v *vm) SetMemory(ctx context.Context, size int64) error {
	if size <= 0 || size > v.cfg.Memory {
		return fmt.Errorf("memory of the VM %s: %d bytes are not within its %d", v.cfg.Name, size, v.cfg.Memory)
	}
	return v.ask(ctx, "set the memory of", func() error {
		v.machine.SetMemory(uint64(size) &^ (1<<20 - 1)) // the framework wants whole MiB
		return nil
	})
}

// Save writes the state of the paused VM to a file, and beside it what Restore needs.
func (v *savingVM) Save(ctx context.Context, path string) error {
	return v.ask(ctx, "save", func() error {
		if !errors.Is(v.Paused(), hypervisor.ErrPaused) {
			return hint.New(errors.New("it is not paused"), "pause it first")
		}
		if err := os.WriteFile(identifierFile(path), v.saving.Identifier(), 0o600); err != nil {
			return err
		}
		if err := v.saving.Save(path); err != nil {
			os.Remove(identifierFile(path))
			return err
		}
		return nil
	})
}

// Wait blocks until the VM is gone.
func (v *vm) Wait() error {
	<-v.done
	return v.err
}

// Close cuts the power.
func (v *vm) Close() error {
	v.closeOnce.Do(func() {
		v.mu.Lock()
		select {
		case <-v.done: // it has ended by itself, and Wait says why
		default:
			// Unless it has ended by itself just now, which watch has not seen yet.
			v.closed = v.state != StateError
		}
		v.mu.Unlock()
		v.end()
		stopped := make(chan error, 1)
		go func() { stopped <- v.machine.Stop() }()
		select {
		case err := <-stopped:
			// A machine that has stopped by itself is in the wrong state for it.
			if err != nil && !isWrongState(err) {
				v.log.Warn("the framework does not stop the VM", "err", explain(err))
			}
		case <-v.done:
		case <-time.After(stopTimeout):
		}
		select {
		case <-v.done:
		case <-time.After(stopTimeout):
			v.closeErr = hint.New(fmt.Errorf("VM %s: the framework does not stop it", v.cfg.Name),
				"it ends with this process")
		}
	})
	return v.closeErr
}
