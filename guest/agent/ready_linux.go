package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distroinit"
	"github.com/lsub/lsub/guest/agent/procfs"
)

// awaitReady waits until the init is ready: a tiny one was from the start. A
// systemd that takes long is let in on, so that its trouble can be looked at.
func (d *distro) awaitReady(timeout time.Duration) error {
	dir, err := os.OpenFile(fmt.Sprintf("/proc/%d/root%s", d.pid, distroinit.ReadyDir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(d.starting, timeout)
	defer cancel()
	exited, err := watchExit(d.pid)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	defer exited.close()
	err = awaitFile(ctx, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), distroinit.ReadyFile, exited.c)
	switch {
	case err == nil:
		d.wasReady.Store(true)
	case errors.Is(err, context.DeadlineExceeded):
		d.a.log.Warn("systemd is not up yet; commands may enter all the same", "distro", d.spec.Name, "after", timeout)
		d.mu.Lock()
		d.warnings = append(d.warnings, fmt.Sprintf("systemd is not up after %s; commands run all the same", timeout))
		d.mu.Unlock()
	case errors.Is(err, errExited):
		dir.Close()
		return errors.New("its init ended")
	case errors.Is(err, context.Canceled):
		dir.Close()
		return errors.New("it was stopped before it was up")
	default:
		dir.Close()
		return err
	}
	d.readyDir = dir
	return nil
}

// errStopping says that nobody can enter a distro any more.
var errStopping = errors.New("the distro is stopping")

// shutsDown tells whether the distro's init shuts it down, or has ended. One that was
// never ready does not.
func (d *distro) shutsDown() bool {
	if procfs.IsExiting(d.pid) {
		return true
	}
	rc, err := d.readyDir.SyscallConn()
	if err != nil {
		return true // closed: it is gone
	}
	up := false
	err = rc.Control(func(fd uintptr) {
		var st unix.Stat_t
		up = unix.Fstatat(int(fd), distroinit.ReadyFile, &st, unix.AT_SYMLINK_NOFOLLOW) != unix.ENOENT
	})
	if up {
		d.wasReady.Store(true)
	}
	return err != nil || !up && d.wasReady.Load()
}

// awaitShutdown waits until a distro that shuts down is gone, and tells whether it is. A
// command that comes while the distro shuts down from inside (systemctl reboot) wants the
// next run; but a systemd that hangs in its shutdown must stay within reach.
func (d *distro) awaitShutdown(ctx context.Context) bool {
	if !d.shutsDown() {
		return false
	}
	grace, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	gone := await(grace, d.gone) == nil
	if !gone && ctx.Err() == nil {
		d.hangs.Store(true)
	}
	return gone
}
