package agent

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/wslconf"
)

const defaultUmask = 0o022

// whoRuns finds the account that a command runs as, in the distro's files as
// they are now. It runs on the entrance.
func whoRuns(cmd *guestv1.Exec) (*account, error) {
	passwd, err := readSmall("/etc/passwd")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	group, err := readSmall("/etc/group")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	settings, _ := readSettings() // its warnings were told at the start
	who, err := chooseAccount(passwd, group, string(cmd.User), settings.User, cmd.Distro.GetDefaultUser())
	if err == nil {
		who.umask = settings.Umask
	}
	return who, err
}

// chooseAccount returns the account asked for; where none is, that of the
// distro's own files, else the one it was installed with, else root. A default
// user who is not there locks nobody out: the next one takes the place, with a
// warning.
func chooseAccount(passwd, group []byte, asked, own, installed string) (*account, error) {
	if asked != "" {
		return findAccount(passwd, group, asked)
	}
	var missing []string
	for _, c := range []struct {
		user string
		find func(passwd, group []byte, user string) (*account, error)
	}{{own, findAccount}, {installed, findDefaultUser}, {"root", findAccount}} {
		if c.user == "" {
			continue
		}
		who, err := c.find(passwd, group, c.user)
		var coded *guest.Error
		if errors.As(err, &coded) && coded.Code == guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER && c.user != "root" {
			missing = append(missing, c.user)
			continue
		}
		if err == nil && len(missing) > 0 {
			who.warnings = []string{fmt.Sprintf("the default user %q does not exist, so commands run as %s; 'lsub manage DISTRO --set-default-user NAME' sets another", missing[0], who.name)}
		}
		return who, err
	}
	return rootAccount(), nil // never reached: root is found in any file
}

func rootAccount() *account {
	return &account{name: "root", home: "/root", shell: "/bin/sh", umask: defaultUmask}
}

// confFile holds what lsub itself sets in a distro, and goes with it wherever it goes.
const confFile = "etc/lsub.conf"

// setDefaultUser writes the default user into /etc/lsub.conf, and keeps the
// rest of the file.
func setDefaultUser(root *os.Root, name string) error {
	old, err := readSmallIn(root, confFile)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	tmp := confFile + ".new"
	root.Remove(tmp)
	if err := root.WriteFile(tmp, wslconf.Set(old, "user", "default", name), 0o644); err != nil {
		return err
	}
	return root.Rename(tmp, confFile)
}

// setDefaultUser makes an account of a distro, which may run, its default user.
func (s *store) setDefaultUser(id, user string) (*account, error) {
	if !exists(s.distroPath(id)) {
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no files of distro %s", id)
	}
	root, err := os.OpenRoot(s.distroPath(id))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	passwd, err := readSmallIn(root, "etc/passwd")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	who, err := findAccount(passwd, nil, cmp.Or(user, "root"))
	if err != nil {
		return nil, err
	}
	return who, storeError(setDefaultUser(root, who.name))
}

// account is a row of /etc/passwd with the groups it is in.
type account struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
	home   string
	shell  string

	umask    int      // of its commands
	warnings []string // about why it is this one
}

// findAccount looks a user up by name or uid. Without a passwd file, root is
// there all the same.
func findAccount(passwd, group []byte, user string) (*account, error) {
	if user == "" {
		user = "root"
	}
	t := parseTable("", passwd)
	row := t.find(0, user)
	if row == nil {
		row = t.find(2, user)
	}
	if len(row) < 7 {
		if user == "root" || user == "0" {
			return rootAccount(), nil
		}
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER, "root sees the users in the distro's /etc/passwd: add '-u root'", "no user %q in the distro", user)
	}
	uid, err1 := strconv.ParseUint(row[2], 10, 32)
	gid, err2 := strconv.ParseUint(row[3], 10, 32)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("the row of %s in /etc/passwd has no ids", row[0])
	}
	a := &account{name: row[0], uid: uint32(uid), gid: uint32(gid), home: row[5], shell: row[6], umask: defaultUmask}
	if a.shell == "" {
		a.shell = "/bin/sh"
	}
	if a.home == "" {
		a.home = "/"
	}
	a.groups = []uint32{a.gid}
	for _, g := range parseTable("", group).rows {
		if len(g) < 4 || !slices.Contains(strings.Split(g[3], ","), a.name) {
			continue
		}
		if id, err := strconv.ParseUint(g[2], 10, 32); err == nil && uint32(id) != a.gid {
			a.groups = append(a.groups, uint32(id))
		}
	}
	return a, nil
}
