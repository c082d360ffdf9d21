package sharemount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// flags of all mounts: what the host's user may make there gives nobody rights in the guest.
const flags = unix.MS_NOSUID | unix.MS_NODEV

// mountTwice mounts a file system at target, as mount does where it is told, and elsewhere so
// that it can be written. It returns the root of the second mount, which nobody else sees. It
// lasts as long as that is open. readOnly is of the first.
func mountTwice(target string, readOnly bool, mount func(at string) error) (root *os.File, err error) {
	at, err := os.MkdirTemp("/run", "share-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(at)
	if err := mount(at); err != nil {
		return nil, err
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	fd, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the mount: %w", err)
	}
	root = os.NewFile(uintptr(fd), at)
	if err := show(at, target, readOnly); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// show mounts what is mounted at a path at another one too.
func show(at, target string, readOnly bool) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("copy the mount: %v", err) // not EINVAL, by which virtio-fs says that there is no device
	}
	defer unix.Close(tree)
	if readOnly {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make the mount read-only: %v", err)
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return fmt.Errorf("mount at %s: %v", target, err)
	}
	return nil
}

// DropEntries has the kernel forget the entries of a mount that nobody uses, and with them
// what it knows of their files.
func DropEntries(root *os.File) error {
	// Nothing changes by this, but the kernel drops entries whenever a mount's file system is
	// set up anew.
	return unix.Mount("", fmt.Sprintf("/proc/self/fd/%d", root.Fd()), "", unix.MS_REMOUNT|flags, "")
}
