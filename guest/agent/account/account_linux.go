package account

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
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/wslconf"
)

const defaultUmask = 0o022

// ForCommand returns the account that a command runs as: the one that cmd names, else
// the default user. The calling thread's root directory is the distro's.
func ForCommand(cmd *guestv1.Exec) (*Account, error) {
	who, err := forCommand(distrofile.Read, cmd)
	if err != nil {
		return nil, err
	}
	var texts [][]byte
	for _, file := range limitFiles() {
		if b, err := distrofile.Read(file); err == nil { // without them it is no worse off
			texts = append(texts, b)
		}
	}
	group, _ := distrofile.Read("/etc/group")
	who.Limits = parseLimits(texts, who, group)
	return who, nil
}

// forCommand is ForCommand with files read by read. A file that cannot be read counts as
// empty: root gets in all the same.
func forCommand(read func(name string) ([]byte, error), cmd *guestv1.Exec) (*Account, error) {
	var unread []string
	file := func(name string) []byte {
		b, err := read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			unread = append(unread, distrofile.NotRead(name, err))
		}
		return b
	}
	passwd, group := file("/etc/passwd"), file("/etc/group")
	settings := distrofile.ReadSettings(read) // its warnings were told at the start
	users := settings.Users
	if user := cmd.Distro.GetDefaultUser(); user != "" {
		users = append(users, distrofile.DefaultUser{Name: user})
	}
	who, err := chooseAccount(passwd, group, string(cmd.User), users, cmd.Distro)
	if err != nil && len(unread) > 0 {
		err = guest.Errorf(guest.ErrorCode(err), "root gets in all the same, and can repair it: add '-u root'", "%v (%s)", err, strings.Join(unread, "; "))
	}
	if err != nil {
		return nil, err
	}
	who.Umask = settings.Umask
	who.Warnings = append(unread, who.Warnings...)
	return who, nil
}

// chooseAccount returns the account asked for; where none is, the first of the
// default users who is there, else root. One who is not locks nobody out: the
// next one takes the place, with a warning.
func chooseAccount(passwd, group []byte, asked string, users []distrofile.DefaultUser, spec *guestv1.Distro) (*Account, error) {
	if asked != "" {
		return Find(passwd, group, asked)
	}
	for i, u := range append(users, distrofile.DefaultUser{Name: "root", From: "the system"}) {
		find := Find
		if u.From == "" {
			find = findImageUser
		}
		who, err := find(passwd, group, u.Name)
		if guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER {
			continue
		}
		if err == nil && i > 0 && len(users) > 0 {
			who.Warnings = append(who.Warnings, missing(users[0], spec, who))
		}
		return who, err
	}
	return Root(), nil // never reached: root is found in any file
}

// missing is the warning that u does not exist and another account takes its place.
func missing(u distrofile.DefaultUser, spec *guestv1.Distro, instead *Account) string {
	from := ""
	if u.From != "" {
		from = u.From + ": "
	}
	return fmt.Sprintf("%sthe default user %q does not exist, so commands run as %s; 'lsub manage %s --set-default-user NAME' sets another",
		from, u.Name, instead.Name, cmp.Or(spec.GetTitle(), spec.GetName()))
}

// Root returns the account of root where a distro's files say nothing of it.
func Root() *Account {
	return &Account{Name: "root", Home: "/root", Shell: "/bin/sh", Umask: defaultUmask}
}

// SetDefault makes a user the default user of the distro at root: it writes the name into
// /etc/lsub.conf, and keeps the rest of the file.
func SetDefault(root *os.Root, name string) error {
	old, err := distrofile.ReadIn(root, distrofile.ConfFile)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return distrofile.Replace(root, distrofile.ConfFile, string(wslconf.Set(old, "user", "default", name)))
}

// Account is a user of a distro: a row of /etc/passwd with the user's groups.
type Account struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32
	Home   string
	Shell  string

	Umask    int      // of the user's commands
	Limits   []Limit  // of the user's commands, over those that the agent has
	Warnings []string // why it is not the account that somebody expects
}

func noSuchUser(format string, args ...any) error {
	return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER, "root sees the users in the distro's /etc/passwd: add '-u root'", format, args...)
}

// Find returns the user of a name or uid in the content of /etc/passwd, with the groups
// in that of /etc/group. Root is always found, and meant where user is "".
func Find(passwd, group []byte, user string) (*Account, error) {
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
			return Root(), nil
		}
		return nil, guest.NoUser(user)
	}
	uid, err1 := strconv.ParseUint(row[2], 10, 32)
	gid, err2 := strconv.ParseUint(row[3], 10, 32)
	switch {
	case err1 == nil && err2 == nil:
	case user == "root" || user == "0":
		return Root(), nil
	default:
		return nil, noSuchUser("the row of %s in /etc/passwd has no ids", row[0])
	}
	a := &Account{Name: row[0], UID: uint32(uid), GID: uint32(gid), Home: row[5], Shell: row[6], Umask: defaultUmask}
	if a.Shell == "" {
		a.Shell = "/bin/sh"
	}
	if a.Home == "" {
		a.Home = "/"
	}
	a.Groups = []uint32{a.GID}
	for _, g := range parseTable("", group).rows {
		if len(g) < 4 || !slices.Contains(strings.Split(g[3], ","), a.Name) {
			continue
		}
		if id, err := strconv.ParseUint(g[2], 10, 32); err == nil && uint32(id) != a.GID {
			a.Groups = append(a.Groups, uint32(id))
		}
	}
	return a, nil
}
