//go:build unix

package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/hint"
)

func TestMakePrivate(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b")
	for range 2 { // made, then found
		if err := MakePrivate(dir); err != nil {
			t.Fatal(err)
		}
	}
	fi, err := os.Stat(dir)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}

	refused := func(dir, want string) {
		t.Helper()
		err := MakePrivate(dir)
		if err == nil || !strings.Contains(err.Error(), want) || hint.Of(err) == "" {
			t.Errorf("%v, want %q and a hint", err, want)
		}
	}
	open := filepath.Join(base, "open")
	os.Mkdir(open, 0o700)
	os.Chmod(open, 0o755)
	refused(open, "is open to other users (mode 0755)")

	link := filepath.Join(base, "link")
	os.Symlink(dir, link)
	refused(link, "is no folder")

	file := filepath.Join(base, "file")
	os.WriteFile(file, nil, 0o600)
	refused(file, "is no folder")

	if os.Getuid() == 0 { // only root can give a directory away
		theirs := filepath.Join(base, "theirs")
		os.Mkdir(theirs, 0o700)
		os.Chown(theirs, 12345, 12345)
		refused(theirs, "belongs to user 12345, not to you")
	}
}

func TestRuntimeHome(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"XDG_RUNTIME_DIR": dir}
	getenv := func(key string) string { return env[key] }
	if got := runtimeHome(getenv); got != filepath.Join(dir, "lsub") {
		t.Error(got)
	}
	for _, bad := range []string{"", "relative", filepath.Join(dir, "missing")} {
		env["XDG_RUNTIME_DIR"] = bad
		if got := runtimeHome(getenv); !strings.HasPrefix(got, "/tmp/lsub-") {
			t.Errorf("%q gives %s", bad, got)
		}
	}
}

func TestDefaultPaths(t *testing.T) {
	env := map[string]string{"LSUB_HOME": "rel"}
	p, err := DefaultPaths(func(key string) string { return env[key] })
	if err != nil || !filepath.IsAbs(p.Home) || filepath.Base(p.Home) != "rel" {
		t.Errorf("%+v, %v", p, err)
	}
}
