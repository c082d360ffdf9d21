package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/wslconf"
)

// settings are what a distro's own files say.
type settings struct {
	wslconf.Settings
	users    []defaultUser // that the files name, the one that counts first
	warnings []string      // what is wrong with the files
}

// defaultUser is an account that is to be the default user.
type defaultUser struct {
	name string // or uid
	from string // what says so, as words for people
}

// readSettings reads the distro's /etc/wsl.conf, and /etc/lsub.conf over it. It
// runs where the distro is the root.
func readSettings() settings { return settingsOf(readSmall) }

func settingsOf(read func(name string) ([]byte, error)) settings {
	s := settings{Settings: wslconf.Defaults()}
	for _, name := range []string{"/etc/wsl.conf", "/" + confFile} {
		b, err := read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			s.warnings = append(s.warnings, notRead(name, err))
			continue
		}
		before := s.UserAt
		s.warnings = append(s.warnings, s.Apply(name, b)...)
		if s.UserAt != before {
			s.users = slices.Insert(s.users, 0, defaultUser{s.User, s.UserAt})
		}
	}
	return s
}

// notRead is the warning about a file that cannot be read.
func notRead(name string, err error) string {
	var in *fs.PathError
	if errors.As(err, &in) {
		err = in.Err // without a name that is only ours
	}
	return fmt.Sprintf("%s: not read: %v", name, err)
}

// readSmall reads a file of the distro's that has a few lines. The distro may
// have put anything in its place: nothing but a plain file on a disk is read, and
// no more than 4 MiB. It runs where the distro is the root.
func readSmall(name string) ([]byte, error) {
	return readPlain(name, os.Stat, os.OpenFile)
}

// readSmallIn is readSmall beneath root.
func readSmallIn(root *os.Root, name string) ([]byte, error) {
	return readPlain(name, root.Stat, root.OpenFile)
}

// errNotPlain says that reading might never end, or not be for nothing: a pipe
// waits, a watchdog wants to be fed once it was opened, and the kernel's log
// goes to one reader.
var errNotPlain = errors.New("it is no plain file on a disk")

const mostSmall = 4 << 20

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
	return io.ReadAll(io.LimitReader(f, mostSmall))
}

// checkPlain refuses what is no file of a few lines. The kernel's own file systems
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
	case info.Size() > mostSmall:
		return fmt.Errorf("its %d bytes are too many", info.Size())
	}
	return nil
}
