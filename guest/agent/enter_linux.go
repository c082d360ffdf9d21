package agent

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// entrance is an OS thread in the namespaces of a distro. A process that it
// starts is in the distro, and paths that it opens are the distro's.
type entrance struct {
	calls chan func()
	ended chan struct{}
}

// enter puts a new thread into the namespaces of a distro's PID 1.
func enter(pid int) (*entrance, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("enter the distro: %w", err)
	}
	defer unix.Close(pidfd)
	e := &entrance{calls: make(chan func()), ended: make(chan struct{})}
	entered := make(chan error)
	go e.serve(pidfd, entered)
	if err := <-entered; err != nil {
		<-e.ended
		return nil, fmt.Errorf("enter the distro: %w", err)
	}
	return e, nil
}

func (e *entrance) serve(pidfd int, entered chan<- error) {
	defer close(e.ended)
	// Never unlocked: the thread, which belongs to the distro now, ends with
	// this goroutine. New threads of the runtime do not come from locked ones.
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_FS) // a mount namespace wants a root of its own
	if err == nil {
		err = unix.Setns(pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWCGROUP)
	}
	entered <- err
	if err != nil {
		return
	}
	for f := range e.calls {
		f()
	}
}

// do runs f on the thread, and waits for it. It returns false, without having
// run f, when the entrance is closed.
func (e *entrance) do(f func()) bool {
	done := make(chan struct{})
	select {
	case e.calls <- func() { defer close(done); f() }:
		<-done
		return true
	case <-e.ended:
		return false
	}
}

// close ends the thread, which holds the distro's mounts. No do may follow that
// has not been begun.
func (e *entrance) close() {
	select {
	case e.calls <- func() { runtime.Goexit() }:
		<-e.ended
	case <-e.ended:
	}
}
