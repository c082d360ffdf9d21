package account

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/guestv1"
)

// Prepare gives the new distro in dir what it does not share with others of its image:
// a machine id, the account of its user, and the environment of its container image. No
// path leads out of dir.
func Prepare(dir string, req *guestv1.CreateDistroRequest) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// With an id that is there, systemd does not take the boot for a first
	// one, which would preset every unit anew.
	if _, err := root.Stat("etc"); err == nil && !(req.KeepIdentity && hasIdentity(root)) {
		if err := newIdentity(root, req.GetDistro().GetName()); err != nil {
			return err
		}
		markUpdated(root)
	}
	if err := writeImageEnv(root, req.Env); err != nil {
		return err
	}
	user := req.User
	if user == nil {
		return nil
	}
	uid := int(user.Uid)
	if uid == 0 {
		uid = 1000 // the first of ordinary users
	}
	if err := addAccount(root, user.Name, uid); err != nil {
		return err
	}
	return SetDefault(root, user.Name)
}

// hasIdentity tells whether the files have a machine id: 32 hexadecimal digits.
func hasIdentity(root *os.Root) bool {
	b, err := distrofile.ReadIn(root, "etc/machine-id")
	id, err2 := hex.DecodeString(strings.TrimSpace(string(b)))
	return err == nil && err2 == nil && len(id) == 16
}

// markUpdated tells systemd that /etc and /var are as new as /usr, so that it
// does not build caches anew on the first start: the image's packages did.
func markUpdated(root *os.Root) {
	usr, err := root.Stat("usr")
	if err != nil {
		return
	}
	for _, name := range []string{"etc/.updated", "var/.updated"} {
		text := fmt.Sprintf("TIMESTAMP_NSEC=%d\n", usr.ModTime().UnixNano())
		if distrofile.Create(root, name, text, 0o644) == nil {
			root.Chtimes(name, usr.ModTime(), usr.ModTime())
		}
	}
}

// addAccount makes an account with a home directory, a group of its own, and sudo
// rights without a password. Where the name exists, it gets the rights only;
// where the uid is taken, the account gets the next free one.
func addAccount(root *os.Root, name string, uid int) error {
	if !validAccount(name) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no user name", name)
	}
	passwd, err := readTable(root, "etc/passwd")
	if err != nil {
		return err
	}
	group, err := readTable(root, "etc/group")
	if err != nil {
		return err
	}
	if passwd.find(0, name) == nil {
		uid = passwd.free(2, uid)
		gid := group.free(2, uid)
		home := "/home/" + name
		if !group.has(name) {
			group.add(name, "x", strconv.Itoa(gid), "")
		} else {
			gid, _ = strconv.Atoi(group.find(0, name)[2])
		}
		passwd.add(name, "x", strconv.Itoa(uid), strconv.Itoa(gid), "", home, loginShell(root))
		if err := makeHome(root, home[1:], uid, gid); err != nil {
			return err
		}
		if err := addShadow(root, name); err != nil {
			return err
		}
		if err := addSubordinate(root, name); err != nil {
			return err
		}
	}
	for _, g := range []string{"sudo", "wheel", "adm", "users"} {
		group.join(g, name)
	}
	if err := group.write(root); err != nil {
		return err
	}
	if err := passwd.write(root); err != nil {
		return err
	}
	if _, err := root.Stat("etc/sudoers.d"); err != nil {
		return nil // no sudo: nothing to allow
	}
	return distrofile.Create(root, "etc/sudoers.d/90-lsub-"+name, name+" ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
}

// validAccount holds names to what useradd of the big distros accepts.
func validAccount(name string) bool {
	if name == "" || len(name) > 32 || name[0] == '-' || (name[0] >= '0' && name[0] <= '9') {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-.") == "" && name[0] != '.'
}

func loginShell(root *os.Root) string {
	for _, sh := range []string{"bin/bash", "usr/bin/bash"} {
		if _, err := root.Stat(sh); err == nil {
			return "/bin/bash"
		}
	}
	return "/bin/sh"
}

// makeHome copies /etc/skel to a new home directory.
func makeHome(root *os.Root, home string, uid, gid int) error {
	if err := root.MkdirAll(path.Dir(home), 0o755); err != nil {
		return err
	}
	if err := root.Mkdir(home, 0o700); err != nil {
		if os.IsExist(err) {
			return nil // somebody's: left as it is
		}
		return err
	}
	skel := "etc/skel"
	err := fs.WalkDir(root.FS(), skel, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // no skel: an empty home
		}
		dst := path.Join(home, strings.TrimPrefix(p, skel))
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case p == skel:
		case e.IsDir():
			err = root.Mkdir(dst, info.Mode().Perm())
		case info.Mode().IsRegular():
			var b []byte
			if b, err = distrofile.ReadIn(root, p); err == nil {
				err = root.WriteFile(dst, b, info.Mode().Perm())
			}
		default:
			return nil
		}
		if err != nil {
			return err
		}
		return root.Lchown(dst, uid, gid)
	})
	if err != nil {
		return err
	}
	return root.Lchown(home, uid, gid)
}

// addShadow locks the password: entering needs none, and nothing else may.
func addShadow(root *os.Root, name string) error {
	for _, f := range []struct{ file, line string }{
		{"etc/shadow", name + ":*:19000:0:99999:7:::"},
		{"etc/gshadow", name + ":*::"},
	} {
		if err := appendLine(root, f.file, f.line); err != nil {
			return err
		}
	}
	return nil
}

// addSubordinate gives the account the 65,536 ids that rootless containers
// use, after those of others.
func addSubordinate(root *os.Root, name string) error {
	for _, file := range []string{"etc/subuid", "etc/subgid"} {
		t, err := readTable(root, file)
		if err != nil {
			return err
		}
		next := 100000
		for _, row := range t.rows {
			if len(row) == 3 {
				first, _ := strconv.Atoi(row[1])
				n, _ := strconv.Atoi(row[2])
				next = max(next, first+n)
			}
		}
		t.add(name, strconv.Itoa(next), "65536")
		if err := t.write(root); err != nil {
			return err
		}
	}
	return nil
}

// appendLine adds a line to a file that exists; one that does not is left so.
func appendLine(root *os.Root, file, line string) error {
	b, err := distrofile.ReadIn(root, file)
	if err != nil {
		return nil
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return distrofile.Overwrite(root, file, append(b, line+"\n"...))
}
