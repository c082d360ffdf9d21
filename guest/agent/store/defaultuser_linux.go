package store

import (
	"cmp"
	"os"
	"strings"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/agent/distrofile"
)

// SetDefaultUser makes a user of a distro, which may run, its default user. user is a name
// or uid, "" root.
func (s *Store) SetDefaultUser(id, user string) (*account.Account, error) {
	if !distrofile.Exists(s.DistroPath(id)) {
		return nil, guest.NoDistro(id)
	}
	root, err := os.OpenRoot(s.DistroPath(id))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	passwd, err := distrofile.ReadIn(root, "etc/passwd")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	who, err := account.Find(passwd, nil, cmp.Or(user, "root"))
	if err != nil {
		return nil, err
	}
	return who, withCode(account.SetDefault(root, who.Name))
}

// DefaultUser returns the default user that a distro's own files name, the zero value
// where they name none who exists.
func (s *Store) DefaultUser(id string) distrofile.DefaultUser {
	root, err := os.OpenRoot(s.DistroPath(id))
	if err != nil {
		return distrofile.DefaultUser{}
	}
	defer root.Close()
	read := func(name string) ([]byte, error) { return distrofile.ReadIn(root, strings.TrimPrefix(name, "/")) }
	passwd, _ := read("/etc/passwd")
	for _, u := range distrofile.ReadSettings(read).Users {
		if who, err := account.Find(passwd, nil, u.Name); err == nil {
			return distrofile.DefaultUser{Name: who.Name, From: u.From}
		}
	}
	return distrofile.DefaultUser{}
}
