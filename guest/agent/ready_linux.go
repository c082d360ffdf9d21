package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The file by which systemd tells the agent that commands may enter: it is
// there from then on until the distro shuts down.
const (
	readyDir  = "/run/lsub"
	readyFile = "ready"
)

// readySocket is there when the file systems, temporary files and D-Bus are:
// what a command may count on. It is early, so that a slow service does not
// keep commands waiting. A socket is made and removed by systemd itself: a service
// would be another process to wait for.
const readySocket = `[Unit]
Description=Let lsub commands enter
DefaultDependencies=no
IgnoreOnIsolate=yes
After=sysinit.target dbus.socket
Conflicts=shutdown.target
Before=shutdown.target
[Socket]
ListenFIFO=` + readyDir + "/" + readyFile + `
SocketMode=0600
RemoveOnStop=yes
`

// readyService is what systemd wants a socket to have. Nothing starts it.
const readyService = `[Unit]
Description=Nothing, for lsub-ready.socket
[Service]
Type=oneshot
ExecStart=/bin/true
`

// awaitReady waits until systemd is ready. One that takes long is let in on, so
// that its trouble can be looked at.
func (d *distro) awaitReady() error {
	dir, err := os.OpenFile(fmt.Sprintf("/proc/%d/root%s", d.pid, readyDir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	died, err := watchDeath(d.pid)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	defer died.close()
	err = awaitFile(ctx, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), readyFile, died.c)
	if err == nil {
		d.readyDir = dir
		return nil
	}
	dir.Close()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		d.a.log.Warn("systemd is not up yet; commands may enter all the same", "distro", d.spec.Name, "after", readyTimeout)
		return nil
	case errors.Is(err, errDied):
		return errors.New("its systemd ended")
	}
	return err
}

// leaves tells whether the distro's systemd shuts it down.
func (d *distro) leaves() bool {
	if d.readyDir == nil {
		return false
	}
	rc, err := d.readyDir.SyscallConn()
	if err != nil {
		return true // closed: it is gone
	}
	gone := false
	err = rc.Control(func(fd uintptr) {
		var st unix.Stat_t
		gone = unix.Fstatat(int(fd), readyFile, &st, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT
	})
	return gone || err != nil
}

// awaitLeave waits until the distro is gone where it is about to be, and tells
// whether it is. Who comes while it shuts down from inside (systemctl reboot)
// wants the next run; but a systemd that hangs on the way must not be out of reach.
func (d *distro) awaitLeave(ctx context.Context) bool {
	if !d.leaves() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	return await(ctx, d.gone) == nil
}
