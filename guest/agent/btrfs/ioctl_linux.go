package btrfs

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The btrfs ioctls in use, from linux/btrfs.h: _IO[RW](0x94, nr, size).
const (
	subvolCreate    = 0x5000940e // _IOW nr 14, struct btrfs_ioctl_vol_args
	snapCreateV2    = 0x50009417 // _IOW nr 23, struct btrfs_ioctl_vol_args_v2
	snapDestroy     = 0x5000940f // _IOW nr 15, struct btrfs_ioctl_vol_args
	resize          = 0x50009403 // _IOW nr 3, struct btrfs_ioctl_vol_args
	subvolSetFlags  = 0x4008941a // _IOW nr 26, __u64
	inoLookup       = 0xd0009412 // _IOWR nr 18, struct btrfs_ioctl_ino_lookup_args
	subvolRootref   = 0xd000943d // _IOWR nr 61, struct btrfs_ioctl_get_subvol_rootref_args
	subvolReadonly  = 1 << 1     // BTRFS_SUBVOL_RDONLY
	volNameMax      = 4087       // BTRFS_PATH_NAME_MAX
	subvolV2NameMax = 4039       // BTRFS_SUBVOL_NAME_MAX
)

// SubvolumeInode is the inode number of the root directory of every subvolume,
// BTRFS_FIRST_FREE_OBJECTID.
const SubvolumeInode = 256

// volArgs is struct btrfs_ioctl_vol_args, 4096 bytes.
type volArgs struct {
	fd   int64
	name [volNameMax + 1]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2, 4096 bytes.
type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [subvolV2NameMax + 1]byte
}

// onParent calls an ioctl on the directory that holds path.
func onParent(path string, req uint, args func(name string) unsafe.Pointer) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return ioctl(dir, req, args(filepath.Base(path)))
}

// ioctl passes a struct to the kernel. Sound as long as arg points to the
// struct that req's size speaks of: each caller's is laid out as in
// linux/btrfs.h, and lives until the call returns.
func ioctl(f *os.File, req uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(req), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

func newVolArgs(name string) unsafe.Pointer {
	var a volArgs
	copy(a.name[:volNameMax], name)
	return unsafe.Pointer(&a)
}

// Create makes an empty subvolume at path.
func Create(path string) error {
	if err := onParent(path, subvolCreate, newVolArgs); err != nil {
		return fmt.Errorf("create subvolume %s: %w", path, err)
	}
	return nil
}

// snapshotOne makes dst a snapshot of the subvolume src, without those below it.
func snapshotOne(src, dst string) error {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	err = onParent(dst, snapCreateV2, func(name string) unsafe.Pointer {
		a := volArgsV2{fd: int64(from.Fd())}
		copy(a.name[:subvolV2NameMax], name)
		return unsafe.Pointer(&a)
	})
	if err != nil {
		return fmt.Errorf("snapshot %s to %s: %w", src, dst, err)
	}
	return nil
}

// setReadOnlyFlag makes a subvolume read-only or writable.
func setReadOnlyFlag(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var flags uint64
	if on {
		flags = subvolReadonly
	}
	if err := ioctl(f, subvolSetFlags, unsafe.Pointer(&flags)); err != nil {
		return fmt.Errorf("set flags of subvolume %s: %w", path, err)
	}
	return nil
}

// Grow makes the file system mounted at path as large as its disk.
func Grow(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := ioctl(f, resize, newVolArgs("max")); err != nil {
		return fmt.Errorf("grow %s: %w", path, err)
	}
	return nil
}
