package sharemount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// deviceTimeout is how long a device may take to appear that the host has added.
const deviceTimeout = 20 * time.Second

// VirtioFS mounts the directory of a file system device (virtio-fs). It waits until the
// kernel has found the device. It returns the root of a mount that can be written, for Echo.
func VirtioFS(ctx context.Context, tag, target string, readOnly bool) (root *os.File, err error) {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	news, err := deviceNews() // before the first look
	if err != nil {
		return nil, err
	}
	defer news.Close()
	defer context.AfterFunc(ctx, func() { news.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 64<<10)
	for {
		// The first one loads the module, which looks for devices. EINVAL: there is none with
		// this tag.
		root, err := mountTwice(target, readOnly, func(at string) error { return unix.Mount(tag, at, "virtiofs", flags, "") })
		if err == nil {
			return root, nil
		}
		if !errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("mount the device %s: %w", tag, err)
		}
		// ENOBUFS: there was more news than was read. Look again.
		if _, err := news.Read(buf); err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("the device %s does not appear: %w", tag, ctx.Err())
		}
	}
}

// deviceNews returns a socket on which the kernel tells of each device that comes or goes.
func deviceNews() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("hear of devices: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("hear of devices: %w", err)
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}
