package distroinit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// HostDir is where a distro sees the shares of the host.
const HostDir = "/mnt/host"

// showHost attaches the directory of the shares. It follows the VM's: what is mounted there
// later shows here too, but what is unmounted here stays there.
func showHost(tree int) error {
	for _, propagation := range []uint64{unix.MS_SLAVE, unix.MS_SHARED} { // shared again: with the distro's containers
		attr := unix.MountAttr{Propagation: propagation}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			unix.Close(tree)
			return fmt.Errorf("the propagation of %s: %w", HostDir, err)
		}
	}
	if err := os.MkdirAll(HostDir, 0o755); err != nil {
		unix.Close(tree)
		return err
	}
	return moveTree(tree, HostDir)
}

// ownDirs are a distro's own, also while nothing is in them.
var ownDirs = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/mnt", "/mnt/host", "/mnt/lsub", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var"}

// ShowShare shows the share at a path below HostDir at another path too, if nothing of the
// distro's is there. It makes the directory where there is none. It runs in the distro's
// namespaces.
func ShowShare(path, at string) (shown bool, err error) {
	for _, own := range []string{"/dev", "/proc", "/sys", "/run", HostDir} {
		if strings.HasPrefix(at, own+"/") {
			return false, nil
		}
	}
	if slices.Contains(ownDirs, at) {
		return false, nil
	}
	if free, err := isFree(at); err != nil || !free {
		return false, err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(HostDir, path), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return false, fmt.Errorf("take the share %s along: %w", path, err)
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		unix.Close(tree)
		return false, err
	}
	if err := moveTree(tree, at); err != nil {
		return false, err
	}
	return true, nil
}

// isFree reports whether a path is missing, or an empty directory.
func isFree(at string) (bool, error) {
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, nil
	}
	d, err := os.Open(at)
	if err != nil {
		return false, err
	}
	defer d.Close()
	if _, err = d.Readdirnames(1); errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
