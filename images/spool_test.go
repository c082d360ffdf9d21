package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
)

func TestSpool(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	old, recent := filepath.Join(dir, "stdin-old"), filepath.Join(dir, "stdin-recent")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(old, nil, 0o600), os.WriteFile(recent, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	var steps []Step
	ref, remove, err := Spool(t.Context(), dir, "stdin", bytes.NewReader(goodTar(t)), func(s Step) { steps = append(steps, s) })
	if err != nil {
		t.Fatal(err)
	}
	img, err := (&Tarball{CacheDir: dir}).Pull(t.Context(), ref, nil)
	if err != nil || img.Name != "stdin" {
		t.Fatalf("%+v, %v", img, err)
	}
	if len(steps) == 0 || steps[0].Text != "reading stdin" || !steps[0].Bytes {
		t.Errorf("progress: %+v", steps)
	}
	remove()
	if left, _ := filepath.Glob(filepath.Join(dir, "stdin-*")); len(left) != 1 || left[0] != recent {
		t.Errorf("left: %v", left)
	}

	ref, remove, err = Spool(t.Context(), dir, "stdin", strings.NewReader("no archive"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	if _, err := (&Tarball{}).Pull(t.Context(), ref, nil); err == nil || err.Error() != "stdin: is not a tar archive" {
		t.Errorf("no archive: %v", err)
	}
}

// full is a reader whose copy finds no space on the disk.
type full struct{}

func (full) Read(p []byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
}

func TestSpoolFails(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	silent, _ := io.Pipe() // gives nothing, as a pipe that somebody holds open
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, _, err := Spool(ctx, dir, "stdin", silent, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if _, _, err := Spool(t.Context(), dir, "stdin", full{}, nil); !errors.Is(err, syscall.ENOSPC) || hint.Of(err) != "free some space on the disk that holds "+dir {
		t.Errorf("full disk: %v, %q", err, hint.Of(err))
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
