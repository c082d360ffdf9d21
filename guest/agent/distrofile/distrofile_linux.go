package distrofile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Read reads a small file by its path. The caller's root directory is the distro's. An
// error says that there is no plain file on a disk, or that it is longer than 4 MiB.
func Read(name string) ([]byte, error) {
	return readPlain(name, os.Stat, os.OpenFile)
}

// ReadIn is Read for a path beneath root.
func ReadIn(root *os.Root, name string) ([]byte, error) {
	return readPlain(name, root.Stat, root.OpenFile)
}

// maxNames bounds how many names of a directory count.
const maxNames = 1000

// Names returns the names in a directory, in order: of too many, some; of what is no
// directory, none. The caller's root directory is the distro's.
func Names(dir string) []string {
	// What is no directory must not be opened: it may be a pipe.
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, _ := f.Readdirnames(maxNames)
	slices.Sort(names)
	return names
}

// errNotPlain refuses files whose reading may never end or has effects: a pipe
// blocks, a watchdog must be fed once it was opened, and the kernel's log goes to one
// reader.
var errNotPlain = errors.New("it is no plain file on a disk")

const maxSize = 4 << 20

func readPlain(name string, stat func(string) (fs.FileInfo, error), open func(string, int, fs.FileMode) (*os.File, error)) ([]byte, error) {
	info, err := stat(name) // opening a device may do something already
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errNotPlain}
	}
	f, err := open(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := checkPlain(f); err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return io.ReadAll(io.LimitReader(f, maxSize))
}

// checkPlain refuses what is no small plain file. The kernel's own file systems
// (proc, sysfs, debugfs) say of all they show that it is a regular file, and have no
// blocks to keep one in; a tmpfs has none to count where it has no limit.
func checkPlain(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var on unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &on); err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular(), on.Blocks == 0 && on.Type != unix.TMPFS_MAGIC:
		return errNotPlain
	case info.Size() > maxSize:
		return fmt.Errorf("its %d bytes are too many", info.Size())
	}
	return nil
}

// Create removes what stands at name, and makes a new file there. Opening what stands
// there could block, as a FIFO does.
func Create(root *os.Root, name, text string, mode os.FileMode) error {
	if err := root.Remove(name); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Replace puts a new file at name in one step: whoever reads it meanwhile finds the
// old file or the new one, whole.
func Replace(root *os.Root, name, text string) error {
	tmp := name + ".lsub-new"
	if err := Create(root, tmp, text, 0o644); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}

// Overwrite writes new content into a file, which keeps its mode and owner.
func Overwrite(root *os.Root, file string, content []byte) error {
	f, err := root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Exists tells whether something stands at path. A symbolic link counts even where
// its target does not exist.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Shown returns the name of a file as messages show it: in quotes where it has spaces
// or control characters.
func Shown(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` || strings.ContainsRune(name, ' ') {
		return q
	}
	return name
}
