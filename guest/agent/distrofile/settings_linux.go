package distrofile

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/lsub/lsub/wslconf"
)

// ConfFile is the file in which lsub itself keeps a distro's settings, relative to the
// distro's root. It goes along when the distro is exported or cloned.
const ConfFile = "etc/lsub.conf"

// Settings are the settings in a distro's own files.
type Settings struct {
	wslconf.Settings
	Users    []DefaultUser // named by the files; the first that exists counts
	Warnings []string      // about mistakes in the files
}

// DefaultUser is a user whom something names as the default user.
type DefaultUser struct {
	Name string // or uid
	From string // the file and line that names them, as shown to people
}

// ReadSettings reads the distro's /etc/wsl.conf, and /etc/lsub.conf over it, by read:
// by [Read] where the distro is the root.
func ReadSettings(read func(name string) ([]byte, error)) Settings {
	s := Settings{Settings: wslconf.Defaults()}
	for _, name := range []string{"/etc/wsl.conf", "/" + ConfFile} {
		b, err := read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			s.Warnings = append(s.Warnings, NotRead(name, err))
			continue
		}
		before := s.UserAt
		s.Warnings = append(s.Warnings, s.Apply(name, b)...)
		if s.UserAt != before {
			s.Users = slices.Insert(s.Users, 0, DefaultUser{s.User, s.UserAt})
		}
	}
	return s
}

// NotRead returns the warning about a file that cannot be read.
func NotRead(name string, err error) string {
	var in *fs.PathError
	if errors.As(err, &in) {
		err = in.Err // without a name that is only ours
	}
	return fmt.Sprintf("%s: not read: %v", name, err)
}
