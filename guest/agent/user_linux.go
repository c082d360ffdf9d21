package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
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
// they are now. It runs on the namespace thread.
func whoRuns(cmd *guestv1.Exec) (*account, error) { return whoRunsIn(readSmall, cmd) }

// whoRunsIn finds the account in the files that read reads. Those that cannot
// be read count as empty: root gets in all the same.
func whoRunsIn(read func(name string) ([]byte, error), cmd *guestv1.Exec) (*account, error) {
	var unread []string
	file := func(name string) []byte {
		b, err := read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			unread = append(unread, notRead(name, err))
		}
		return b
	}
	passwd, group := file("/etc/passwd"), file("/etc/group")
	settings := settingsOf(read) // its warnings were told at the start
	users := settings.users
	if user := cmd.Distro.GetDefaultUser(); user != "" {
		users = append(users, defaultUser{user, ""})
	}
	who, err := chooseAccount(passwd, group, string(cmd.User), users, cmd.Distro)
	if err != nil && len(unread) > 0 {
		err = guest.Errorf(guest.ErrorCode(err), "root gets in all the same, and can repair it: add '-u root'", "%v (%s)", err, strings.Join(unread, "; "))
	}
	if err != nil {
		return nil, err
	}
	who.umask = settings.Umask
	who.warnings = append(unread, who.warnings...)
	return who, nil
}

// chooseAccount returns the account asked for; where none is, the first of the
// default users who is there, else root. One who is not locks nobody out: the
// next one takes the place, with a warning.
func chooseAccount(passwd, group []byte, asked string, users []defaultUser, spec *guestv1.Distro) (*account, error) {
	if asked != "" {
		return findAccount(passwd, group, asked)
	}
	for i, u := range append(users, defaultUser{name: "root", from: "the system"}) {
		find := findAccount
		if u.from == "" {
			find = findDefaultUser
		}
		who, err := find(passwd, group, u.name)
		if guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER {
			continue
		}
		if err == nil && i > 0 && len(users) > 0 {
			who.warnings = append(who.warnings, users[0].missing(spec, who))
		}
		return who, err
	}
	return rootAccount(), nil // never reached: root is found in any file
}

// missing is the warning that another account takes the place of u.
func (u defaultUser) missing(spec *guestv1.Distro, instead *account) string {
	from := ""
	if u.from != "" {
		from = u.from + ": "
	}
	return fmt.Sprintf("%sthe default user %q does not exist, so commands run as %s; 'lsub manage %s --set-default-user NAME' sets another",
		from, u.name, instead.name, cmp.Or(spec.GetTitle(), spec.GetName()))
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
	return putFile(root, confFile, string(wslconf.Set(old, "user", "default", name)))
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

// ownUser is the default user that a distro's own files name, the empty one
// where they name none that is there.
func (s *store) ownUser(id string) defaultUser {
	root, err := os.OpenRoot(s.distroPath(id))
	if err != nil {
		return defaultUser{}
	}
	defer root.Close()
	read := func(name string) ([]byte, error) { return readSmallIn(root, strings.TrimPrefix(name, "/")) }
	passwd, _ := read("/etc/passwd")
	for _, u := range settingsOf(read).users {
		if who, err := findAccount(passwd, nil, u.name); err == nil {
			return defaultUser{who.name, u.from}
		}
	}
	return defaultUser{}
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

func noSuchUser(format string, args ...any) error {
	return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER, "root sees the users in the distro's /etc/passwd: add '-u root'", format, args...)
}

// findAccount looks a user up by name or uid. Whatever the passwd file holds,
// root is there.
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
		return nil, noSuchUser("no user %q in the distro", user)
	}
	uid, err1 := strconv.ParseUint(row[2], 10, 32)
	gid, err2 := strconv.ParseUint(row[3], 10, 32)
	switch {
	case err1 == nil && err2 == nil:
	case user == "root" || user == "0":
		return rootAccount(), nil
	default:
		return nil, noSuchUser("the row of %s in /etc/passwd has no ids", row[0])
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
