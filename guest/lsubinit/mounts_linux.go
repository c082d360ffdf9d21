package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/cgroup"
)

// mountBase mounts the kernel's file systems.
func mountBase() error {
	if err := pivotable(); err != nil {
		return err
	}
	for _, m := range []struct {
		fstype, target string
		flags          uintptr
		data           string
	}{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, ""},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5"},
		{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		// Without nsdelegate: with it, the agent could not start a process in a distro's
		// group and cgroup namespace at once. It would protect the limits at a namespace's
		// root, but here they are set one group above.
		{"cgroup2", "/sys/fs/cgroup", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "memory_recursiveprot"},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := finishDev(); err != nil {
		return err
	}
	if err := shareDirectory(); err != nil {
		return err
	}
	return cgroup.SetUp()
}

// pivotable makes the root a mount that pivot_root can replace; it cannot replace the
// initramfs itself. The new root is the same tree, mounted on itself.
func pivotable() error {
	const at = "/mnt"
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the root: %w", err)
	}
	if err := unix.Chdir(at); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	// All threads of the program share their root and working directory.
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// sharedDir is /mnt/lsub in all distros.
const sharedDir = "/run/lsub/shared"

// shareDirectory mounts a tmpfs that all distros share: each mount in it appears in all of
// them. Its mode is that of /tmp, because it belongs to no one user.
func shareDirectory() error {
	if err := mount("lsub", sharedDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	if err := unix.Mount("", sharedDir, "", unix.MS_SHARED, ""); err != nil {
		return err
	}
	// The shares of the host; each mount in it appears in all distros.
	if err := mount("host", hostDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
		return err
	}
	return unix.Mount("", hostDir, "", unix.MS_SHARED, "")
}

// hostDir is /mnt/host in all distros.
const hostDir = "/run/lsub/host"

// finishDev adds udev's links and mount points to devtmpfs, which all distros share.
// makeDevices adds the devices.
func finishDev() error {
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !os.IsExist(err) {
			return err
		}
	}
	for _, dir := range []string{"/dev/mqueue", "/dev/hugepages"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}
