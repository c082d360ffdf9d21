package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

var errExited = errors.New("the process ended")

// exitWatch tells when a process has exited.
type exitWatch struct {
	c  <-chan struct{}
	fd *os.File
}

// watchExit watches a process that is a child of ours. The caller closes the watch.
func watchExit(pid int) (*exitWatch, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := make(chan struct{})
	go func() {
		// A pidfd is readable when its process has ended; Read's callback says
		// "not yet" until the poller reports that.
		err := rc.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0
		})
		if err == nil {
			close(c)
		}
	}()
	return &exitWatch{c, f}, nil
}

func (d *exitWatch) close() { d.fd.Close() }

// awaitFile waits until a file of that name exists in dir, ctx is done, or
// exited is closed (errExited).
func awaitFile(ctx context.Context, dir, name string, exited <-chan struct{}) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	found := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for !distrofile.Exists(filepath.Join(dir, name)) {
			if _, err := f.Read(buf); err != nil {
				found <- err
				return
			}
		}
		found <- nil
	}()
	select {
	case err := <-found:
		return err
	case <-exited:
		return errExited
	case <-ctx.Done():
		return ctx.Err()
	}
}
