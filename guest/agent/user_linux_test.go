package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lsub/lsub/guest"
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
		who, err := whoRunsIn(readFrom(files), execAs(c.asked, c.installed))
		if err != nil || who.name != c.want {
			t.Errorf("%+v: %+v, %v", c, who, err)
			continue
		}
		var want []string
		if c.warning != "" {
			want = []string{strings.Replace(c.warning, "as %s;", "as "+c.want+";", 1)}
		}
		if !slices.Equal(who.warnings, want) {
			t.Errorf("%+v: warnings %q, want %q", c, who.warnings, want)
		}
	}
	for _, user := range []string{"gone", "eve"} {
		if who, err := whoRunsIn(readFrom(map[string]string{"/etc/passwd": string(passwd)}), execAs(user, "ann")); guest.ErrorCode(err) != guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER {
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
			who, err := whoRunsIn(readFrom(map[string]string{"/etc/passwd": passwd}), execAs(asked, ""))
			if err != nil || who.uid != 0 || who.home != "/root" || who.shell != "/bin/sh" {
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
	read := func(name string) ([]byte, error) { return readSmall(filepath.Join(dir, name)) }
	for _, asked := range []string{"root", ""} {
		who, err := whoRunsIn(read, execAs(asked, ""))
		if err != nil || who.uid != 0 || len(who.warnings) == 0 || who.warnings[0] != "/etc/passwd: not read: it is no plain file on a disk" {
			t.Errorf("as %q: %+v, %v", asked, who, err)
		}
	}
	_, err := whoRunsIn(read, execAs("ann", ""))
	if guest.ErrorCode(err) != guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER || !strings.Contains(err.Error(), `no user "ann" in the distro (/etc/passwd: not read:`) || !strings.Contains(hint.Of(err), "-u root") {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
	if s := settingsOf(read); len(s.warnings) == 0 || s.warnings[0] != "/etc/wsl.conf: not read: it is no plain file on a disk" {
		t.Errorf("%q", s.warnings)
	}
}

func TestReadSmall(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"plain": "text\n", "empty": ""} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if b, err := readSmall(at(name)); err != nil || string(b) != text {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if err := os.WriteFile(at("huge"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(at("huge"), mostSmall+1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"link": "plain", "gone": "nowhere", "null": "/dev/null", "proc": "/proc/self/status", "sys": "/sys/kernel/notes", "folder": "/",
	} {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := readSmall(at("link")); err != nil || string(b) != "text\n" {
		t.Errorf("through a link: %q, %v", b, err)
	}
	if _, err := readSmall(at("gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to nothing: %v", err)
	}
	for _, name := range []string{"pipe", "null", "proc", "sys", "folder"} {
		if b, err := readSmall(at(name)); !errors.Is(err, errNotPlain) {
			t.Errorf("%s: %.20q, %v", name, b, err)
		}
	}
	if b, err := readSmall(at("huge")); err == nil {
		t.Errorf("%d bytes were read", len(b))
	}
	// Where a folder that all may write to (a tmpfs) holds the file, it is one.
	if f, err := os.CreateTemp("/dev/shm", "lsub-test-"); err == nil {
		defer os.Remove(f.Name())
		f.WriteString("x")
		f.Close()
		if b, err := readSmall(f.Name()); err != nil || string(b) != "x" {
			t.Errorf("on a tmpfs: %q, %v", b, err)
		}
	}
}

func TestOwnUser(t *testing.T) {
	s := &store{dir: t.TempDir()}
	if u := s.ownUser("one"); u != (defaultUser{}) {
		t.Errorf("of none: %+v", u)
	}
	etc := filepath.Join(s.distroPath("one"), "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		want       defaultUser
	}{
		{"passwd", passwdText + "ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n", defaultUser{}},
		{"wsl.conf", "[user]\ndefault = ann\n", defaultUser{"ann", "/etc/wsl.conf:2"}},
		{"lsub.conf", "\n[user]\ndefault = 1001\n", defaultUser{"bob", "/etc/lsub.conf:3"}},
		{"lsub.conf", "[user]\ndefault = gone\n", defaultUser{"ann", "/etc/wsl.conf:2"}},
	} {
		if err := os.WriteFile(filepath.Join(etc, c.name), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if u := s.ownUser("one"); u != c.want {
			t.Errorf("after %s %q: %+v, want %+v", c.name, c.text, u, c.want)
		}
	}
}

func TestSetDefaultUser(t *testing.T) {
	dir := t.TempDir()
	s := &store{dir: dir}
	distro := s.distroPath("one")
	file := func(name, text string) {
		t.Helper()
		p := filepath.Join(distro, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	conf := func() string {
		b, err := os.ReadFile(filepath.Join(distro, confFile))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	file("etc/passwd", passwdText+"ann:x:1000:1000::/home/ann:/bin/sh\n")
	file(confFile, "# mine\n[boot]\ncommand=true\n[user]\ndefault=root # was\n")
	who, err := s.setDefaultUser("one", "1000")
	if err != nil || who.name != "ann" || who.uid != 1000 {
		t.Fatalf("%+v, %v", who, err)
	}
	if got := conf(); got != "# mine\n[boot]\ncommand=true\n[user]\ndefault=ann\n" {
		t.Errorf("the file is %q", got)
	}
	for id, user := range map[string]string{"one": "bob", "two": "ann"} {
		if _, err := s.setDefaultUser(id, user); err == nil {
			t.Errorf("%s in %s was taken", user, id)
		}
	}
	if got := conf(); !strings.Contains(got, "default=ann") {
		t.Errorf("a user who does not exist was written: %q", got)
	}

	// What a distro has in the file's place leads nobody out of it, and holds
	// nobody up.
	out := filepath.Join(dir, "out")
	if err := os.WriteFile(out, []byte("host's\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(distro, confFile)
	os.Remove(path)
	if err := os.Symlink(out, path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.setDefaultUser("one", "ann"); err == nil {
		t.Error("a link out of the distro was followed")
	}
	os.Remove(path)
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.setDefaultUser("one", "ann"); err == nil {
		t.Error("a pipe was read")
	}
	if b, _ := os.ReadFile(out); string(b) != "host's\n" {
		t.Errorf("outside: %q", b)
	}
}

func TestSettingsOf(t *testing.T) {
	files := map[string]string{
		"/etc/wsl.conf":  "[user]\ndefault=ann\n[network]\nhostname=box\nbad\n",
		"/etc/lsub.conf": "[user]\ndefault=bob\n[boot]\nsystemd=maybe\n",
	}
	s := settingsOf(readFrom(files))
	want := []string{"/etc/wsl.conf:5: a setting is written as key = value", "/etc/lsub.conf:4: boot.systemd = maybe: must be true or false"}
	if s.User != "bob" || s.Hostname != "box" || !s.Systemd || !slices.Equal(s.warnings, want) {
		t.Errorf("%+v", s)
	}
	if users := []defaultUser{{"bob", "/etc/lsub.conf:2"}, {"ann", "/etc/wsl.conf:2"}}; !slices.Equal(s.users, users) {
		t.Errorf("users %+v", s.users)
	}
	if s := settingsOf(func(string) ([]byte, error) { return nil, os.ErrPermission }); len(s.warnings) != 2 {
		t.Errorf("files that cannot be read: %q", s.warnings)
	}
}

func TestDistroNames(t *testing.T) {
	env := environment(rootAccount(), &guestv1.Exec{Distro: &guestv1.Distro{Name: "my-box", Title: "My-Box"}})
	for _, key := range []string{"WSL_DISTRO_NAME", "LSUB_DISTRO_NAME"} {
		if got := lookupEnv(env, key); got != "My-Box" {
			t.Errorf("%s = %q", key, got)
		}
	}
	got := readVariables([]byte("# LANG=no\nLANG=de_DE.UTF-8\nexport A=\"b c\"\n\nbroken\n =x\n"))
	if want := []string{"LANG=de_DE.UTF-8", "A=b c"}; !slices.Equal(got, want) {
		t.Errorf("variables %q, want %q", got, want)
	}
}
