//go:build unix

package machine

import (
	"fmt"
	"os"
	"syscall"

	"github.com/lsub/lsub/hint"
)

func mkdirPrivate(dir string) error { return os.Mkdir(dir, 0o700) }

func ownedByUs(dir string) bool {
	fi, err := os.Stat(dir)
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}

// checkPrivate refuses a directory that somebody else made or may enter: who can
// write to it could put another socket in our place.
func checkPrivate(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() { // a symbolic link is refused too
		return hint.New(fmt.Errorf("%s is no folder", dir), "remove it")
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Getuid() {
		return hint.New(fmt.Errorf("%s belongs to user %d, not to you", dir, st.Uid),
			"somebody made it in your place: remove it, or set XDG_RUNTIME_DIR to a folder of your own")
	}
	if mode := fi.Mode().Perm(); mode&0o077 != 0 {
		return hint.New(fmt.Errorf("%s is open to other users (mode %#o)", dir, mode),
			fmt.Sprintf("close it with 'chmod 700 %s'", dir))
	}
	return nil
}
