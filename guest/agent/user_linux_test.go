package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
)

func TestChooseAccount(t *testing.T) {
	passwd := []byte(passwdText + "ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n")
	for _, c := range []struct{ asked, own, installed, want, missing string }{
		{"", "", "", "root", ""},
		{"", "", "ann", "ann", ""},
		{"", "bob", "ann", "bob", ""},
		{"", "1001", "ann", "bob", ""},
		{"ann", "bob", "", "ann", ""},
		{"root", "bob", "ann", "root", ""},
		{"", "gone", "ann", "ann", "gone"},
		{"", "gone", "", "root", "gone"},
		{"", "", "gone", "root", "gone"},
		{"", "gone", "gone too", "root", "gone"},
		{"", "", "65532:65532", "65532", ""}, // as container images have it
	} {
		who, err := chooseAccount(passwd, nil, c.asked, c.own, c.installed)
		if err != nil || who.name != c.want {
			t.Errorf("%+v: %+v, %v", c, who, err)
			continue
		}
		if c.missing == "" != (len(who.warnings) == 0) || c.missing != "" && !strings.Contains(who.warnings[0], c.missing) {
			t.Errorf("%+v: warnings %q", c, who.warnings)
		}
	}
	if who, err := chooseAccount(passwd, nil, "gone", "ann", "ann"); err == nil {
		t.Errorf("who was asked for does not exist: %+v", who)
	}
	if who, err := chooseAccount(nil, nil, "", "ann", ""); err != nil || who.name != "root" || who.umask != 0o022 {
		t.Errorf("without a passwd file: %+v, %v", who, err)
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
	s, warnings := settingsOf(func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, os.ErrNotExist
	})
	want := []string{"/etc/wsl.conf:5: a setting is written as key = value", "/etc/lsub.conf:4: boot.systemd = maybe: must be true or false"}
	if s.User != "bob" || s.Hostname != "box" || !s.Systemd || !slices.Equal(warnings, want) {
		t.Errorf("%+v, %q", s, warnings)
	}
	if _, warnings := settingsOf(func(string) ([]byte, error) { return nil, os.ErrPermission }); len(warnings) != 2 {
		t.Errorf("files that cannot be read: %q", warnings)
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
