package hvwindows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

var (
	_ hypervisor.VM        = (*vm)(nil)
	_ hypervisor.Paused    = (*vm)(nil)
	_ hypervisor.Pauser    = (*vm)(nil)
	_ hypervisor.Described = (*vm)(nil)
)

const (
	// stopTimeout bounds how long Windows may take to cut the power.
	stopTimeout = 30 * time.Second
	// consoleGrace is how long the end of a VM's console may take.
	consoleGrace = 3 * time.Second
)

// vm is a VM of the Host Compute System.
type vm struct {
	cfg     *hypervisor.Config
	host    Host
	facts   Facts
	log     *slog.Logger
	system  System
	runtime string // its runtime identifier
	sockets sockets

	alive context.Context // done when the VM ends or Close begins
	off   context.CancelFunc
	wg    sync.WaitGroup
	done  chan struct{} // closed when everything has ended

	closeOnce sync.Once
	closeErr  error      // of Close
	power     sync.Mutex // held while Windows pauses or resumes

	mu      sync.Mutex
	closed  bool          // Close was called
	held    bool          // its owner has paused it
	changed chan struct{} // closed and replaced at each change of held
	err     error         // of Wait; read it after done
}

func newVM(cfg *hypervisor.Config, h Host, f Facts, log *slog.Logger) *vm {
	v := &vm{cfg: cfg, host: h, facts: f, log: log, done: make(chan struct{}), changed: make(chan struct{})}
	v.alive, v.off = context.WithCancel(context.Background())
	v.sockets.init(v)
	return v
}

// begin takes a new VM to running processors. When it fails, end has to be called.
func (v *vm) begin(ctx context.Context) error {
	id, err := v.system.RuntimeID()
	if err != nil {
		return fmt.Errorf("the VM's runtime identifier: %w", explain(err))
	}
	v.runtime = id
	started := make(chan error, 1)
	system := v.system
	go func() { started <- system.Start() }()
	select {
	case err := <-started:
		if err != nil {
			return explain(err)
		}
	case <-ctx.Done():
		// Nothing interrupts the service but the VM's end. The next start needs that too.
		if err := system.Terminate(); err != nil && !isWrongState(err) {
			v.log.Debug("a VM that did not start is not terminated", "err", err)
		}
		select {
		case <-started:
		case <-time.After(stopTimeout):
			v.log.Warn("Windows does not give up the start of a VM")
			v.system = nil
			go func() {
				<-started
				system.Close()
			}()
		}
		return context.Cause(ctx)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v.wg.Go(v.copyConsole)
	go v.watch()
	return nil
}

// watch waits until the machine is gone, and cleans up after it.
func (v *vm) watch() {
	status := <-v.system.Exited()
	v.log.Debug("the VM has ended", "status", status)
	err := exitError(status)
	v.mu.Lock()
	if err != nil && !v.closed {
		v.err = fmt.Errorf("VM %s: %w", v.cfg.Name, err)
		v.log.Error("the VM has died", "err", v.err)
	}
	v.mu.Unlock()
	v.end()
	close(v.done)
}

// end lets go of the VM and all that belongs to it.
func (v *vm) end() {
	v.off()
	v.sockets.close()
	if v.system != nil {
		v.system.Close()
	}
	v.wg.Wait()
}

// exitStatus is the document of a VM's end.
// https://learn.microsoft.com/virtualization/api/hcs/schemareference#SystemExitStatus
type exitStatus struct {
	Status      int32  // an HRESULT
	ExitType    string // GracefulExit, ForcedExit, UnexpectedExit, …
	Attribution []struct {
		WorkerExit *struct{ Type, Detail string }
		GuestCrash *struct{}
		// With a number in it, which says nothing to us.
		TripleFault *struct{}
	}
}

// exitError says what a VM has died of; nil for a power-off by its guest.
func exitError(document string) error {
	var s exitStatus
	if err := json.Unmarshal([]byte(document), &s); err != nil {
		return hint.New(fmt.Errorf("the VM has ended, and Windows does not say why: %w", err), seeEvents)
	}
	for _, a := range s.Attribution {
		if a.GuestCrash != nil || a.TripleFault != nil || a.WorkerExit != nil && a.WorkerExit.Type == "StoppedOnReset" {
			return hypervisor.ErrGuestCrashed
		}
	}
	switch {
	case s.ExitType == "GracefulExit" && s.Status >= 0:
		return nil
	case s.ExitType == "ForcedExit":
		return hint.New(errors.New("somebody has ended the VM, as with 'hcsdiag kill'"), "start it again")
	case s.Status < 0:
		return hint.New(fmt.Errorf("the VM was ended by Windows (%s): %w", s.ExitType, Result(uint32(s.Status))), seeEvents)
	}
	return hint.New(fmt.Errorf("the VM was ended by Windows (%s)", s.ExitType), seeEvents)
}

// copyConsole writes what comes out of the serial port to the console's file. It ends with the
// VM, which closes the pipe.
func (v *vm) copyConsole() {
	pipe, err := v.host.OpenConsole(consolePipe(systemID(v.cfg)))
	if err != nil {
		v.log.Warn("the VM's console is lost", "err", err)
		return
	}
	defer pipe.Close()
	// Windows closes it with the VM. Nobody waits for one that it forgets.
	defer context.AfterFunc(v.alive, func() { time.AfterFunc(consoleGrace, func() { pipe.Close() }) })()
	file, err := os.OpenFile(v.cfg.Console, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		v.log.Warn("the VM's console is lost", "err", err)
		return
	}
	defer file.Close()
	if _, err := io.Copy(file, pipe); err != nil && v.alive.Err() == nil {
		v.log.Debug("the end of the console", "err", err)
	}
}

// Description returns the version of Windows.
func (v *vm) Description() string { return "Host Compute System of Windows " + v.facts.Version }

// Paused tells whether the owner has paused the VM.
func (v *vm) Paused() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held {
		return hypervisor.ErrPaused
	}
	return nil
}

// Pause halts the guest's processors.
func (v *vm) Pause(ctx context.Context) error {
	return v.setHeld(ctx, "pause", true, func() error { return v.system.Pause() })
}

// Resume lets the guest go on.
func (v *vm) Resume(ctx context.Context) error {
	return v.setHeld(ctx, "resume", false, func() error { return v.system.Resume() })
}

// setHeld asks Windows, which cannot be interrupted: when ctx ends first, it goes on by itself.
func (v *vm) setHeld(ctx context.Context, what string, held bool, request func() error) error {
	fail := func(err error) error { return fmt.Errorf("%s the VM %s: %w", what, v.cfg.Name, err) }
	if ctx.Err() != nil {
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
		if v.isHeld() == held {
			answered <- nil
			return
		}
		if held {
			v.hold(true) // before it is, so that no dial begins that would wait for the guest
		}
		err := explain(request())
		if err != nil && held || err == nil && !held {
			v.hold(false)
		}
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

func (v *vm) isHeld() bool { return v.Paused() != nil }

func (v *vm) hold(held bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = held
	close(v.changed)
	v.changed = make(chan struct{})
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
		v.closed = true
		v.mu.Unlock()
		v.off()
		terminated := make(chan error, 1)
		go func() { terminated <- v.system.Terminate() }()
		timeout := time.After(stopTimeout)
		select {
		case err := <-terminated:
			// A VM that has ended by itself is in the wrong state for it.
			if err != nil && !isWrongState(err) {
				v.log.Warn("Windows does not terminate the VM", "err", explain(err))
			}
		case <-v.done:
		case <-timeout:
		}
		select {
		case <-v.done:
		case <-timeout:
			v.closeErr = hint.New(fmt.Errorf("VM %s: Windows does not end it", v.cfg.Name), "end it with 'hcsdiag kill'")
		}
	})
	return v.closeErr
}
