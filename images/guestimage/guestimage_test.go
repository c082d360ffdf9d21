package guestimage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/guestimage/manifest"
)

// fakeGuest is an embedded directory with three small files.
func fakeGuest(t *testing.T) fstest.MapFS {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"README.md": {}}
	add := func(name string) manifest.File {
		data := bytes.Repeat([]byte(name), 1000)
		files[name+".zst"] = &fstest.MapFile{Data: z.EncodeAll(data, nil)}
		sum := sha256.Sum256(data)
		return manifest.File{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
	}
	m := manifest.Manifest{Kernel: "6.12", Files: manifest.Files{
		KernelImage: add("kernel"), Initrd: add("initrd"), System: add("system")}}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	files[manifest.Name] = &fstest.MapFile{Data: data}
	return files
}

func TestOpen(t *testing.T) {
	files, cache := fakeGuest(t), t.TempDir()
	g, err := openFS(t.Context(), files, cache)
	if err != nil {
		t.Fatal(err)
	}
	if g.Manifest.Kernel != "6.12" {
		t.Errorf("kernel is %q", g.Manifest.Kernel)
	}
	check := func() {
		t.Helper()
		for p, name := range map[string]string{g.Kernel: "kernel", g.Initrd: "initrd", g.System: "system"} {
			if b, err := os.ReadFile(p); err != nil || !bytes.Equal(b, bytes.Repeat([]byte(name), 1000)) {
				t.Errorf("%s: %v, %d bytes", name, err, len(b))
			}
		}
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(g.Kernel), tempPrefix+"*"))
		if len(left) > 0 {
			t.Errorf("left %v", left)
		}
	}
	check()

	// The second time nothing is unpacked: damaged embedded files do not matter.
	broken := fstest.MapFS{manifest.Name: files[manifest.Name]}
	if _, err := openFS(t.Context(), broken, cache); err != nil {
		t.Error(err)
	}
	// A file that was cut is unpacked again.
	if err := os.Truncate(g.System, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := openFS(t.Context(), files, cache); err != nil {
		t.Error(err)
	}
	check()
}

func TestOpenAtOnce(t *testing.T) {
	files, cache := fakeGuest(t), t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := openFS(t.Context(), files, cache); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestOpenErrors(t *testing.T) {
	_, err := openFS(t.Context(), fstest.MapFS{"README.md": {}}, t.TempDir())
	if err == nil || !strings.Contains(hint.Of(err), "./task guest") {
		t.Errorf("no guest: got %v, hint %q", err, hint.Of(err))
	}

	for name, change := range map[string]func(fstest.MapFS){
		"wrong bytes": func(f fstest.MapFS) { f["system.zst"] = f["kernel.zst"] },
		"cut off":     func(f fstest.MapFS) { f["system.zst"].Data = f["system.zst"].Data[:20] },
		"missing":     func(f fstest.MapFS) { delete(f, "system.zst") },
	} {
		files, cache := fakeGuest(t), t.TempDir()
		change(files)
		if _, err := openFS(t.Context(), files, cache); err == nil {
			t.Errorf("%s: no error", name)
		}
		left, _ := filepath.Glob(filepath.Join(cache, "guest", "*", "*"))
		for _, l := range left {
			if b := filepath.Base(l); b != "kernel" && b != "initrd" {
				t.Errorf("%s: left %s", name, b)
			}
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openFS(ctx, fakeGuest(t), t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestOldGuestsGo(t *testing.T) {
	cache := t.TempDir()
	old, recent := filepath.Join(cache, "guest", "old"), filepath.Join(cache, "guest", "recent")
	for _, d := range []string{old, recent} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	then := time.Now().Add(-2 * guestAge)
	if err := os.Chtimes(old, then, then); err != nil {
		t.Fatal(err)
	}
	if _, err := openFS(t.Context(), fakeGuest(t), cache); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the old guest is still there")
	}
	if _, err := os.Stat(recent); err != nil {
		t.Error("the recent guest is gone")
	}
}

// BenchmarkOpen is the price each start of a VM pays.
func BenchmarkOpen(b *testing.B) {
	cache := b.TempDir()
	if _, err := Open(b.Context(), cache); err != nil {
		b.Skip(err)
	}
	for b.Loop() {
		if _, err := Open(b.Context(), cache); err != nil {
			b.Fatal(err)
		}
	}
}
