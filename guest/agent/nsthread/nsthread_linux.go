package nsthread

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by [Call] on a closed thread: the distro that it belongs to
// is stopping.
var ErrClosed = errors.New("the distro is stopping")

// Thread is an OS thread in namespaces of its own. It is safe for concurrent use, and
// must be closed.
type Thread struct {
	calls chan func()
	quit  chan struct{} // closed by Close
}

// Enter starts a thread in the namespaces of a distro's PID 1.
func Enter(pid int) (*Thread, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("enter the distro: %w", err)
	}
	defer unix.Close(pidfd)
	t, err := New(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // a mount namespace wants a root of its own
			return err
		}
		return unix.Setns(pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWCGROUP|unix.CLONE_NEWNET)
	})
	if err != nil {
		return nil, fmt.Errorf("enter the distro: %w", err)
	}
	return t, nil
}

// New starts a thread, on which it calls join first. After an error of join there is
// no thread.
func New(join func() error) (*Thread, error) {
	t := &Thread{calls: make(chan func()), quit: make(chan struct{})}
	entered := make(chan error)
	go t.serve(join, entered)
	if err := <-entered; err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Thread) serve(join func() error, entered chan<- error) {
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
		case f := <-t.calls:
			f()
		case <-t.quit:
			return
		}
	}
}

// Call runs f on the thread and returns its results. f may hang on something that the
// distro controls (a file system that does not answer, a pipe in the place of a file):
// when ctx is done first, Call returns the cause of that, and calls drop with the
// result that f returns later. Other calls wait until f has returned.
func Call[T any](ctx context.Context, t *Thread, f func() (T, error), drop func(T)) (T, error) {
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
	case t.calls <- run:
	case <-t.quit:
		return none, ErrClosed
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

// Close ends the thread, which keeps the namespaces and their mounts alive. It does not
// wait for a call that hangs. It may be called once.
func (t *Thread) Close() { close(t.quit) }
