package distroinit

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountPoint is a file system of a distro.
type mountPoint struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// distroMounts are made in this order, as systemd expects them of a container
// manager. /sys is read-only, so that a distro's udev leaves the shared
// devices alone. /dev is the kernel's, the same for all distros, but for the
// terminals.
var distroMounts = []mountPoint{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY, ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"tmpfs", "/run/lock", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777,size=5120k"},
}

// kernelMounts are made where the kernel has them. systemd would make them
// too, with a process each.
var kernelMounts = []mountPoint{
	{"hugetlbfs", "/dev/hugepages", "hugetlbfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
	{"debugfs", "/sys/kernel/debug", "debugfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tracefs", "/sys/kernel/tracing", "tracefs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"fusectl", "/sys/fs/fuse/connections", "fusectl", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=0700"},
}

// sharedDir is a tmpfs that all distros have in common.
const sharedDir = "/mnt/lsub"

// enterRoot mounts the distro and makes it the root of this mount namespace.
func enterRoot(cfg Config) error {
	const at = "/mnt"
	// Before mounts are made private: what is mounted in it shows in all distros.
	shared, err := openTree(cfg.Shared)
	if err != nil {
		return err
	}
	// Likewise; but what a distro unmounts there, the others keep.
	host, err := openTree(cfg.Host)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// What comes from the VM is taken by descriptor now and attached when the
	// distro is the root, so that no link of the distro's leads it astray.
	modules, err := openTree(cfg.Modules)
	if err != nil {
		return err
	}
	tools, err := openTree(cfg.Tools)
	if err != nil {
		return err
	}
	console, err := openTree(cfg.Console)
	if err != nil {
		return err
	}
	if err := mountRoot(cfg.Root, at); err != nil {
		return err
	}
	if err := unix.Chdir(at); err != nil {
		return err
	}
	// With both the same, the old root lies over the new and is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the VM's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	// What is mounted in the distro shows in the containers that share a directory
	// of it, as where systemd boots a machine. In a container it leaves that to us.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts with the distro's containers: %w", err)
	}
	for _, m := range distroMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, m := range kernelMounts {
		unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	}
	if modules >= 0 {
		if err := os.MkdirAll("/lib/modules", 0o755); err != nil {
			return err
		}
		if err := moveTree(modules, "/lib/modules"); err != nil {
			return err
		}
	}
	if tools >= 0 {
		if err := showTools(tools); err != nil {
			return err
		}
	}
	if shared >= 0 {
		if err := os.MkdirAll(sharedDir, 0o755); err != nil {
			return err
		}
		if err := moveTree(shared, sharedDir); err != nil {
			return err
		}
	}
	if host >= 0 {
		if err := showHost(host); err != nil {
			return err
		}
	}
	return moveTree(console, "/dev/console")
}

// showTools attaches the directory of lsub's programs, which no distro can change.
func showTools(tree int) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(tree)
		return fmt.Errorf("protect %s: %w", ToolsDir, err)
	}
	if err := os.MkdirAll(ToolsDir, 0o755); err != nil {
		unix.Close(tree)
		return err
	}
	return moveTree(tree, ToolsDir)
}

// mountRoot mounts a distro's subvolume. It is a further mount of the file system
// that the VM has mounted already, because the distro may not open the disk.
func mountRoot(subvolume, at string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, subvolume, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("take %s along: %w", subvolume, err)
	}
	// The VM itself has nothing to run on that disk, a distro has.
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return fmt.Errorf("mount %s: %w", subvolume, err)
	}
	return moveTree(fd, at)
}

// openTree returns a detached copy of the mounts at path, -1 for "".
func openTree(path string) (int, error) {
	if path == "" {
		return -1, nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("take %s along: %w", path, err)
	}
	return fd, nil
}

func moveTree(fd int, target string) error {
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// binaryFormats is where the kernel lists the binary formats of binfmt_misc. They are
// the VM's: all distros have the same.
const binaryFormats = "/proc/sys/fs/binfmt_misc"

// shareBinaryFormats mounts the list. Where it is protected, nothing comes of
// what systemd does when a distro starts and stops: removing all formats,
// those of other distros among them. Single ones can be added and removed.
func shareBinaryFormats(protect bool) {
	// The module brings the directory along.
	fd, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return // a kernel without
	}
	unix.Close(fd)
	if err := unix.Mount("binfmt_misc", binaryFormats, "binfmt_misc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err == nil && protect {
		unix.Mount("/dev/null", binaryFormats+"/status", "", unix.MS_BIND, "")
	}
}
