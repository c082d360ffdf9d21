package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A distro is a subvolume, and may hold further ones: docker's btrfs driver
// makes them, and systemd-tmpfiles (/var/lib/machines). A snapshot ends at
// those, so that trees of subvolumes have to be handled as such.
//
// Paths go through the descriptor of each subvolume on the way (below), because
// they may be longer together than the kernel takes: a distro nests as deep as it
// likes.

// below is a path beneath an open folder, in a form of the same length at any depth.
func below(dir *os.File, path string) string {
	return filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), path)
}

// snapshotTree makes dst a snapshot of the subvolume src and of those below it.
// It takes as long as there are subvolumes, whatever their size. What is left of
// a failure is the caller's to delete.
func snapshotTree(src, dst string) error {
	if err := snapshot(src, dst, false); err != nil {
		return err
	}
	return eachNested(src, func(from *os.File, path string) error {
		to, err := os.Open(dst)
		if err != nil {
			return err
		}
		defer to.Close()
		// Where a subvolume was, its parent's snapshot has an empty folder.
		at := below(to, path)
		if err := unix.Rmdir(at); err != nil {
			return fmt.Errorf("snapshot of %s: %w", path, err)
		}
		if err := snapshotTree(below(from, path), at); err != nil {
			return err
		}
		return copyTimes(below(from, filepath.Dir(path)), below(to, filepath.Dir(path)))
	})
}

// copyTimes gives a folder the times of another one.
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

// deleteSubvolume deletes a subvolume with all that is in it, and those below
// it.
func deleteSubvolume(path string) error {
	destroy := func() error { return onParent(path, btrfsSnapDestroy, newVolArgs) }
	err := destroy()
	if errors.Is(err, unix.ENOTEMPTY) {
		if err = deleteNested(path); err == nil {
			err = destroy()
		}
	}
	if err != nil {
		return fmt.Errorf("delete subvolume %s: %w", path, err)
	}
	return nil
}

func deleteNested(path string) error {
	if err := setReadOnly(path, false); err != nil {
		return err
	}
	return eachNested(path, func(dir *os.File, p string) error { return deleteSubvolume(below(dir, p)) })
}

// setReadOnlyTree makes a subvolume and those below it read-only.
func setReadOnlyTree(path string) error {
	err := eachNested(path, func(dir *os.File, p string) error { return setReadOnlyTree(below(dir, p)) })
	if err != nil {
		return err
	}
	return setReadOnly(path, true)
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
	seen := map[uint64]bool{} // folders
	var args rootrefArgs
	for {
		err := ioctl(f, btrfsSubvolRootref, unsafe.Pointer(&args))
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

// nestedIn returns the subvolumes in one folder of a subvolume.
func nestedIn(subvolume *os.File, dirID uint64) ([]string, error) {
	lookup := inoLookupArgs{objectID: dirID}
	if err := ioctl(subvolume, btrfsInoLookup, unsafe.Pointer(&lookup)); err != nil {
		return nil, fmt.Errorf("folder %d of %s: %w", dirID, subvolume.Name(), err)
	}
	dir, _, _ := bytes.Cut(lookup.name[:], []byte{0}) // "" for the top, else it ends with a slash
	list, err := names(below(subvolume, string(dir)))
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range list {
		p := filepath.Join(string(dir), name)
		var st unix.Stat_t
		if err := unix.Lstat(below(subvolume, p), &st); err != nil {
			return nil, err
		}
		if st.Ino == btrfsSubvolInode && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			paths = append(paths, p)
		}
	}
	return paths, nil
}
