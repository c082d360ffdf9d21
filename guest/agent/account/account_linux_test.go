package account

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
)

func TestChooseAccount(t *testing.T) {
	passwd := []byte(passwdText + "ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n")
	passwd = append(passwd, "eve:x:many:1::/:/bin/sh\n"...)
	const fix = " does not exist, so commands run as %s; 'lsub manage My-Box --set-default-user NAME' sets another"
	for _, c := range []struct{ asked, wsl, lsub, installed, want, warning string }{
		{"", "", "", "", "root", ""},
		{"", "", "", "ann", "ann", ""},
		{"", "bob", "", "ann", "bob", ""},
		{"", "bob", "ann", "", "ann", ""},
		{"", "1001", "", "ann", "bob", ""},
		{"ann", "bob", "", "", "ann", ""},
		{"root", "bob", "", "ann", "root", ""},
		{"", "gone", "", "ann", "ann", `/etc/wsl.conf:2: the default user "gone"` + fix},
		{"", "bob", "gone", "ann", "bob", `/etc/lsub.conf:3: the default user "gone"` + fix},
		{"", "gone", "", "", "root", `/etc/wsl.conf:2: the default user "gone"` + fix},
		{"", "", "", "gone", "root", `the default user "gone"` + fix},
		{"", "", "", "100%s", "root", `the default user "100%s"` + fix},
		{"", "gone", "", "gone too", "root", `/etc/wsl.conf:2: the default user "gone"` + fix},
		{"", "eve", "", "bob", "bob", `/etc/wsl.conf:2: the default user "eve"` + fix}, // her row is broken
		{"", "", "", "65532:65532", "65532", ""},                                       // as container images have it
	} {
		files := map[string]string{"/etc/passwd": string(passwd)}
		if c.wsl != "" {
			files["/etc/wsl.conf"] = "[user]\ndefault=" + c.wsl + "\n"
		}
		if c.lsub != "" {
			files["/etc/lsub.conf"] = "# x\n[user]\ndefault=" + c.lsub + "\n"
		}
		who, err := forCommand(readFrom(files), execAs(c.asked, c.installed))
		if err != nil || who.Name != c.want {
			t.Errorf("%+v: %+v, %v", c, who, err)
			continue
		}
		var want []string
		if c.warning != "" {
			want = []string{strings.Replace(c.warning, "as %s;", "as "+c.want+";", 1)}
		}
		if !slices.Equal(who.Warnings, want) {
			t.Errorf("%+v: warnings %q, want %q", c, who.Warnings, want)
		}
	}
	for _, user := range []string{"gone", "eve"} {
		if who, err := forCommand(readFrom(map[string]string{"/etc/passwd": string(passwd)}), execAs(user, "ann")); guest.ErrorCode(err) != guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER {
			t.Errorf("%s was asked for: %+v, %v", user, who, err)
		}
	}
}

func execAs(user, installed string) *guestv1.Exec {
	return &guestv1.Exec{User: []byte(user), Distro: &guestv1.Distro{Name: "my-box", Title: "My-Box", DefaultUser: installed}}
}

// readFrom reads files that a test has made up.
func readFrom(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
}

// Root gets into a distro whatever stands in the place of its files, and who
// does not is told how to.
func TestRootAlwaysGetsIn(t *testing.T) {
	for name, passwd := range map[string]string{
		"none": "", "empty": "\n", "no ids": "root:x:::root:/:/bin/sh\n", "too short": "root:x:0\n", "binary": "\x00\xff:\x00",
	} {
		for _, asked := range []string{"root", "0", ""} {
			who, err := forCommand(readFrom(map[string]string{"/etc/passwd": passwd}), execAs(asked, ""))
			if err != nil || who.UID != 0 || who.Home != "/root" || who.Shell != "/bin/sh" {
				t.Errorf("%s, as %q: %+v, %v", name, asked, who, err)
			}
		}
	}

	// As a distro may have it: each file is something else.
	dir := t.TempDir()
	for _, d := range []string{"etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"wsl.conf": "/proc/kmsg", "lsub.conf": "/dev/watchdog", "group": "/sys/kernel/notes"} {
		if err := os.Symlink(to, filepath.Join(dir, "etc", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	read := func(name string) ([]byte, error) { return distrofile.Read(filepath.Join(dir, name)) }
	for _, asked := range []string{"root", ""} {
		who, err := forCommand(read, execAs(asked, ""))
		if err != nil || who.UID != 0 || len(who.Warnings) == 0 || who.Warnings[0] != "/etc/passwd: not read: it is no plain file on a disk" {
			t.Errorf("as %q: %+v, %v", asked, who, err)
		}
	}
	_, err := forCommand(read, execAs("ann", ""))
	if guest.ErrorCode(err) != guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER || !strings.Contains(err.Error(), `no user "ann" in the distro (/etc/passwd: not read:`) || !strings.Contains(hint.Of(err), "-u root") {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
	if s := distrofile.ReadSettings(read); len(s.Warnings) == 0 || s.Warnings[0] != "/etc/wsl.conf: not read: it is no plain file on a disk" {
		t.Errorf("%q", s.Warnings)
	}
}
