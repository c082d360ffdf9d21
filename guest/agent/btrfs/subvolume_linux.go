package btrfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Paths go through the descriptor of each subvolume on the way (below), because
// they may be longer together than the kernel takes: a distro nests as deep as it
// likes.

// below is a path beneath an open directory, in a form of the same length at any depth.
func below(dir *os.File, path string) string {
	return filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), path)
}

// Snapshot makes dst a writable snapshot of the subvolume src and of those below
// it. The time it takes grows with the number of subvolumes, not with their size.
// After an error the caller deletes dst.
func Snapshot(src, dst string) error {
	if err := snapshotOne(src, dst); err != nil {
		return err
	}
	return eachNested(src, func(from *os.File, path string) error {
		to, err := os.Open(dst)
		if err != nil {
			return err
		}
		defer to.Close()
		// Where a subvolume was, its parent's snapshot has an empty directory.
		at := below(to, path)
		if err := unix.Rmdir(at); err != nil {
			return fmt.Errorf("snapshot of %s: %w", path, err)
		}
		if err := Snapshot(below(from, path), at); err != nil {
			return err
		}
		return copyTimes(below(from, filepath.Dir(path)), below(to, filepath.Dir(path)))
	})
}

// copyTimes gives a directory the times of another one.
func copyTimes(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return fmt.Errorf("times of %s: %w", from, err)
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, 0); err != nil {
		return fmt.Errorf("times of %s: %w", to, err)
	}
	return nil
}

// eachNested calls f with a subvolume and the path in it of each one that is
// directly below it.
func eachNested(path string, f func(dir *os.File, path string) error) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	paths, err := nested(dir)
	if err != nil {
		return err
	}
	for _, p := range paths {
		if err := f(dir, p); err != nil {
			return err
		}
	}
	return nil
}

// Delete deletes a subvolume with all its files, and the subvolumes below it.
func Delete(path string) error {
	destroy := func() error { return onParent(path, snapDestroy, newVolArgs) }
	err := destroy()
	if errors.Is(err, unix.ENOTEMPTY) {
		if err = deleteBelow(path); err == nil {
			err = destroy()
		}
	}
	if err != nil {
		return fmt.Errorf("delete subvolume %s: %w", path, err)
	}
	return nil
}

func deleteBelow(path string) error {
	if err := setReadOnlyFlag(path, false); err != nil {
		return err
	}
	return eachNested(path, func(dir *os.File, p string) error { return Delete(below(dir, p)) })
}

// SetReadOnly makes a subvolume and those below it read-only.
func SetReadOnly(path string) error {
	err := eachNested(path, func(dir *os.File, p string) error { return SetReadOnly(below(dir, p)) })
	if err != nil {
		return err
	}
	return setReadOnlyFlag(path, true)
}

// rootrefArgs is struct btrfs_ioctl_get_subvol_rootref_args, 4096 bytes.
type rootrefArgs struct {
	minTreeID uint64
	refs      [255]struct{ treeID, dirID uint64 }
	items     uint8
	_         [7]byte
}

// inoLookupArgs is struct btrfs_ioctl_ino_lookup_args, 4096 bytes.
type inoLookupArgs struct {
	treeID, objectID uint64
	name             [4080]byte
}

// nested returns the paths of the subvolumes that are directly below one,
// relative to it. It asks the kernel for them, and does not walk the tree.
func nested(f *os.File) ([]string, error) {
	var paths []string
	seen := map[uint64]bool{} // directories
	var args rootrefArgs
	for {
		err := ioctl(f, subvolRootref, unsafe.Pointer(&args))
		more := errors.Is(err, unix.EOVERFLOW)
		if err != nil && !more {
			return nil, fmt.Errorf("subvolumes below %s: %w", f.Name(), err)
		}
		for _, ref := range args.refs[:args.items] {
			if seen[ref.dirID] {
				continue
			}
			seen[ref.dirID] = true
			found, err := nestedIn(f, ref.dirID)
			if err != nil {
				return nil, err
			}
			paths = append(paths, found...)
		}
		if !more {
			return paths, nil
		}
		args.minTreeID = args.refs[args.items-1].treeID + 1
	}
}

// nestedIn returns the subvolumes in one directory of a subvolume.
func nestedIn(subvolume *os.File, dirID uint64) ([]string, error) {
	lookup := inoLookupArgs{objectID: dirID}
	if err := ioctl(subvolume, inoLookup, unsafe.Pointer(&lookup)); err != nil {
		return nil, fmt.Errorf("directory %d of %s: %w", dirID, subvolume.Name(), err)
	}
	dir, _, _ := bytes.Cut(lookup.name[:], []byte{0}) // "" for the top, else it ends with a slash
	list, err := os.ReadDir(below(subvolume, string(dir)))
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range list {
		p := filepath.Join(string(dir), e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(below(subvolume, p), &st); err != nil {
			return nil, err
		}
		if st.Ino == SubvolumeInode && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			paths = append(paths, p)
		}
	}
	return paths, nil
}
