package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// entrance is an OS thread in the namespaces of a distro. A process that it
// starts is in the distro, and paths that it opens are the distro's.
type entrance struct {
	calls chan func()
	quit  chan struct{} // closed when no call may come any more
}

// enter puts a new thread into the namespaces of a distro's PID 1.
func enter(pid int) (*entrance, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("enter the distro: %w", err)
	}
	defer unix.Close(pidfd)
	e, err := newEntrance(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // a mount namespace wants a root of its own
			return err
		}
		return unix.Setns(pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWCGROUP|unix.CLONE_NEWNET)
	})
	if err != nil {
		return nil, fmt.Errorf("enter the distro: %w", err)
	}
	return e, nil
}

// newEntrance puts a new thread where join takes it.
func newEntrance(join func() error) (*entrance, error) {
	e := &entrance{calls: make(chan func()), quit: make(chan struct{})}
	entered := make(chan error)
	go e.serve(join, entered)
	if err := <-entered; err != nil {
		return nil, err
	}
	return e, nil
}

func (e *entrance) serve(join func() error, entered chan<- error) {
	// Never unlocked: the thread, which belongs to the distro now, ends with
	// this goroutine. New threads of the runtime do not come from locked ones.
	runtime.LockOSThread()
	err := join()
	entered <- err
	if err != nil {
		return
	}
	for {
		select {
		case f := <-e.calls:
			f()
		case <-e.quit:
			return
		}
	}
}

// errLeft says that a distro is on its way out.
var errLeft = errors.New("the distro is stopping")

// call runs f on the entrance and returns what f returns. What f does there may
// hang in the distro's hands (a file system that does not answer, a pipe in the
// place of a file): when ctx is done first, call returns, and hands what f returns
// later to drop. Other calls wait behind f meanwhile.
func call[T any](ctx context.Context, e *entrance, f func() (T, error), drop func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	done := make(chan result, 1)
	run := func() {
		v, err := f()
		done <- result{v, err}
	}
	select {
	case e.calls <- run:
	case <-e.quit:
		return none, errLeft
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				drop(r.v)
			}
		}()
		return none, context.Cause(ctx)
	}
}

// close lets the thread, which holds the distro's mounts, end. It does not wait
// for a call that hangs.
func (e *entrance) close() { close(e.quit) }
