package distrofile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"plain": "text\n", "empty": ""} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if b, err := Read(at(name)); err != nil || string(b) != text {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if err := os.WriteFile(at("huge"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(at("huge"), maxSize+1); err != nil {
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
	if b, err := Read(at("link")); err != nil || string(b) != "text\n" {
		t.Errorf("through a link: %q, %v", b, err)
	}
	if _, err := Read(at("gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to nothing: %v", err)
	}
	for _, name := range []string{"pipe", "null", "proc", "sys", "folder"} {
		if b, err := Read(at(name)); !errors.Is(err, errNotPlain) {
			t.Errorf("%s: %.20q, %v", name, b, err)
		}
	}
	if b, err := Read(at("huge")); err == nil {
		t.Errorf("%d bytes were read", len(b))
	}
	// Where a directory that all may write to (a tmpfs) holds the file, it is one.
	if f, err := os.CreateTemp("/dev/shm", "lsub-test-"); err == nil {
		defer os.Remove(f.Name())
		f.WriteString("x")
		f.Close()
		if b, err := Read(f.Name()); err != nil || string(b) != "x" {
			t.Errorf("on a tmpfs: %q, %v", b, err)
		}
	}
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

func TestReadSettings(t *testing.T) {
	files := map[string]string{
		"/etc/wsl.conf":  "[user]\ndefault=ann\n[network]\nhostname=box\nbad\n",
		"/etc/lsub.conf": "[user]\ndefault=bob\n[boot]\nsystemd=maybe\n",
	}
	s := ReadSettings(readFrom(files))
	want := []string{"/etc/wsl.conf:5: a setting is written as key = value", "/etc/lsub.conf:4: boot.systemd = maybe: must be true or false"}
	if s.User != "bob" || s.Hostname != "box" || !s.Systemd || !slices.Equal(s.Warnings, want) {
		t.Errorf("%+v", s)
	}
	if users := []DefaultUser{{"bob", "/etc/lsub.conf:2"}, {"ann", "/etc/wsl.conf:2"}}; !slices.Equal(s.Users, users) {
		t.Errorf("users %+v", s.Users)
	}
	if s := ReadSettings(func(string) ([]byte, error) { return nil, os.ErrPermission }); len(s.Warnings) != 2 {
		t.Errorf("files that cannot be read: %q", s.Warnings)
	}
}
