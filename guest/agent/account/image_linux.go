package account

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/guestv1"
)

// findImageUser looks up a distro's default user, which is one as container
// images name it: USER or USER:GROUP, each by name or number. A number needs
// nobody in /etc/passwd: many images have a user of whom they say no more.
func findImageUser(passwd, group []byte, user string) (*Account, error) {
	name, groupName, hasGroup := strings.Cut(user, ":")
	who, err := Find(passwd, group, name)
	if uid, ok := parseID(name); err != nil && ok {
		who, err = &Account{Name: name, UID: uid, Groups: []uint32{0}, Home: "/", Shell: "/bin/sh"}, nil
	}
	if err != nil || !hasGroup || groupName == "" {
		return who, err
	}
	row := parseTable("", group).find(0, groupName)
	if len(row) > 2 {
		groupName = row[2]
	}
	gid, ok := parseID(groupName)
	if !ok {
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER, "name another user with '-u', such as root", "no group %q in the distro", groupName)
	}
	who.GID, who.Groups = gid, []uint32{gid} // and no others, as with an engine
	return who, nil
}

// parseID reads the number of a user or group. The largest one means none.
func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err == nil && id != 1<<32-1
}

// ownVars are variables that are each user's or terminal's own, whatever an
// image says.
var ownVars = []string{
	"HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "TERM", "HOSTNAME",
	"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
}

// profileScript has the image's PATH for login shells: /etc/profile sets
// another one before it reads this.
const profileScript = "etc/profile.d/lsub-image.sh"

// writeImageEnv gives the distro the environment that its container image asks
// for: in /etc/environment, where commands and PAM find it. What the file says
// already, the image has over.
func writeImageEnv(root *os.Root, env [][]byte) error {
	if len(env) == 0 {
		return nil
	}
	old, err := readEnvironment(root)
	if err != nil {
		return err
	}
	lines := strings.TrimSuffix(string(old), "\n")
	path := ""
	for _, e := range env {
		name, value, ok := strings.Cut(string(e), "=")
		// A line is all that the file can hold of a value.
		if !ok || !isVariable(name) || slices.Contains(ownVars, name) || strings.ContainsAny(value, "\n\r\x00") {
			continue
		}
		lines += "\n" + name + `="` + value + `"`
		if name == "PATH" {
			path = value
		}
	}
	lines = strings.TrimPrefix(lines, "\n")
	if lines == strings.TrimSuffix(string(old), "\n") {
		return nil
	}
	if err := root.MkdirAll("etc", 0o755); err != nil {
		return err
	}
	if err := distrofile.Overwrite(root, "etc/environment", []byte(lines+"\n")); err != nil || path == "" {
		return err
	}
	if err := errors.Join(root.MkdirAll("etc/profile.d", 0o755), root.RemoveAll(profileScript)); err != nil {
		return err
	}
	quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	return distrofile.Overwrite(root, profileScript, []byte("# PATH of the container image that this distro was made of\nPATH="+quoted+"\nexport PATH\n"))
}

// readEnvironment reads /etc/environment. What has its place and is no file
// goes: a link leads out of the distro, and a pipe to nobody.
func readEnvironment(root *os.Root) ([]byte, error) {
	info, err := root.Lstat("etc/environment")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, root.RemoveAll("etc/environment")
	case info.Size() > 1<<20:
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_BAD_IMAGE, "", "the image's /etc/environment has %d bytes", info.Size())
	}
	return distrofile.ReadIn(root, "etc/environment")
}

// isVariable tells whether a shell can have a variable of that name.
func isVariable(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return name != "" && strings.Trim(name, letters+"0123456789") == "" && strings.Contains(letters, name[:1])
}

// unquote takes the quotes around a value of /etc/environment off, as pam_env
// does: no more than one pair.
func unquote(value string) string {
	if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}
