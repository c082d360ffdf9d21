package store

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

const passwdText = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"

func TestOwnUser(t *testing.T) {
	s := &Store{dir: t.TempDir()}
	if u := s.DefaultUser("one"); u != (distrofile.DefaultUser{}) {
		t.Errorf("of none: %+v", u)
	}
	etc := filepath.Join(s.DistroPath("one"), "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		want       distrofile.DefaultUser
	}{
		{"passwd", passwdText + "ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n", distrofile.DefaultUser{}},
		{"wsl.conf", "[user]\ndefault = ann\n", distrofile.DefaultUser{Name: "ann", From: "/etc/wsl.conf:2"}},
		{"lsub.conf", "\n[user]\ndefault = 1001\n", distrofile.DefaultUser{Name: "bob", From: "/etc/lsub.conf:3"}},
		{"lsub.conf", "[user]\ndefault = gone\n", distrofile.DefaultUser{Name: "ann", From: "/etc/wsl.conf:2"}},
	} {
		if err := os.WriteFile(filepath.Join(etc, c.name), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if u := s.DefaultUser("one"); u != c.want {
			t.Errorf("after %s %q: %+v, want %+v", c.name, c.text, u, c.want)
		}
	}
}

func TestSetDefaultUser(t *testing.T) {
	dir := t.TempDir()
	s := &Store{dir: dir}
	distro := s.DistroPath("one")
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
		b, err := os.ReadFile(filepath.Join(distro, distrofile.ConfFile))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	file("etc/passwd", passwdText+"ann:x:1000:1000::/home/ann:/bin/sh\n")
	file(distrofile.ConfFile, "# mine\n[boot]\ncommand=true\n[user]\ndefault=root # was\n")
	who, err := s.SetDefaultUser("one", "1000")
	if err != nil || who.Name != "ann" || who.UID != 1000 {
		t.Fatalf("%+v, %v", who, err)
	}
	if got := conf(); got != "# mine\n[boot]\ncommand=true\n[user]\ndefault=ann\n" {
		t.Errorf("the file is %q", got)
	}
	for id, user := range map[string]string{"one": "bob", "two": "ann"} {
		if _, err := s.SetDefaultUser(id, user); err == nil {
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
	path := filepath.Join(distro, distrofile.ConfFile)
	os.Remove(path)
	if err := os.Symlink(out, path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetDefaultUser("one", "ann"); err == nil {
		t.Error("a link out of the distro was followed")
	}
	os.Remove(path)
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetDefaultUser("one", "ann"); err == nil {
		t.Error("a pipe was read")
	}
	if b, _ := os.ReadFile(out); string(b) != "host's\n" {
		t.Errorf("outside: %q", b)
	}
}
