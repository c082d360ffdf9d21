package distro

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openUnnamed opens a new file for what is to stand at path, on the disk that
// path is on but without a name: however lsub ends, nothing is left of it. It
// is for its user alone. It returns nil where the file system has no such files.
func openUnnamed(path string) *os.File {
	fd, err := unix.Open(filepath.Dir(path), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), path)
	if _, err := os.Stat(fdPath(f)); err != nil { // without /proc it would never get a name
		f.Close()
		return nil
	}
	return f
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// giveName has an unnamed file stand at path, in the place of one before it.
func giveName(f *os.File, path string) error {
	err := linkTo(f, path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A link replaces nothing, a rename does.
	tmp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".lsub-*")
	if err != nil {
		return err
	}
	whole := filepath.Join(tmp, filepath.Base(path))
	if err = linkTo(f, whole); err == nil {
		err = os.Rename(whole, path)
	}
	return errors.Join(err, os.RemoveAll(tmp))
}

func linkTo(f *os.File, path string) error {
	if err := unix.Linkat(unix.AT_FDCWD, fdPath(f), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "link", Old: f.Name(), New: path, Err: err}
	}
	return nil
}
