package images

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsub/lsub/rootfs"
)

// needBootstrap skips a test that runs mmdebstrap for real.
func needBootstrap(t *testing.T) {
	t.Helper()
	if os.Getenv("LSUB_TEST_VM") == "" {
		t.Skip("builds a Debian root file system from the network, in half a minute; set LSUB_TEST_VM=1")
	}
	if runtime.GOOS != "linux" {
		t.Skip("mmdebstrap runs on Linux only")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is not installed")
	}
}

// TestDebian builds trixie, by two callers at once.
func TestDebian(t *testing.T) {
	needBootstrap(t)
	cache := t.TempDir()
	ref, err := ParseRef("debian")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	stages := map[string]Step{}
	progress := func(s Step) {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := stages[s.Text]; !ok {
			t.Logf("%+v", s)
		}
		stages[s.Text] = s
	}
	start := time.Now()
	var images [2]*Image
	var wg sync.WaitGroup
	for i := range images {
		wg.Go(func() {
			img, err := (&Debian{CacheDir: cache}).Pull(t.Context(), ref, progress)
			if err != nil {
				t.Error(err)
			}
			images[i] = img
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Logf("built in %v: %s, %d bytes", time.Since(start), images[0].ID, images[0].Size)
	if images[0].ID != images[1].ID {
		t.Error("two images were built")
	}
	for _, text := range []string{"downloading essential packages", "installing essential packages",
		"downloading packages", "installing packages", "packing"} {
		if s, ok := stages[text]; !ok || s.Done == 0 || !s.Bytes && s.Done != s.Total {
			t.Errorf("progress of %q ended with %+v", text, s)
		}
	}
	checkTree(t, images[0])
	checkCache(t, cache, 1)

	start = time.Now()
	t.Setenv("PATH", "/nonexistent")
	if _, err := (&Debian{CacheDir: cache}).Pull(t.Context(), ref, nil); err != nil {
		t.Error("from the cache:", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("from the cache it took %v", d)
	}
}

// checkTree looks at what the archive of a Debian image holds.
func checkTree(t *testing.T, img *Image) {
	t.Helper()
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var st rootfs.State
	tr := tar.NewReader(r)
	seen := map[string]*tar.Header{}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := rootfs.CheckHeader(h, &st); err != nil {
			t.Error(err)
		}
		name, _ := rootfs.Clean(h.Name)
		seen[name] = h
	}
	if err := st.Finish(); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error("verify:", err)
	}
	for _, want := range []string{
		"usr/bin/sudo", "usr/bin/less", "usr/bin/ps", "usr/bin/nano", "usr/bin/login", "usr/sbin/useradd", "usr/bin/ping",
		"usr/lib/systemd/systemd", "usr/bin/dbus-daemon", "etc/ssl/certs/ca-certificates.crt", "etc/apt/sources.list",
	} {
		if seen[want] == nil {
			t.Errorf("has no %s", want)
		}
	}
	for _, no := range []string{"etc/hostname", "etc/resolv.conf", "usr/bin/udevadm", "usr/lib/systemd/systemd-timesyncd"} {
		if seen[no] != nil {
			t.Errorf("has %s", no)
		}
	}
	if h := seen["etc/machine-id"]; h == nil || h.Size != 0 {
		t.Error("etc/machine-id is not an empty file")
	}
	for name := range seen {
		if strings.HasSuffix(name, ".deb") || strings.HasPrefix(name, "var/lib/apt/lists/") && strings.Contains(name, "_") {
			t.Errorf("has %s", name)
		}
	}
}

// checkCache wants so many images in the cache and nothing half-made.
func checkCache(t *testing.T, cache string, images int) {
	t.Helper()
	blobs, records := 0, 0
	filepath.WalkDir(cache, func(p string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			t.Error(err)
		case strings.HasPrefix(d.Name(), "tmp-"):
			t.Errorf("left %s", p)
		case strings.HasSuffix(p, ".tar.zst"):
			blobs++
		case strings.HasSuffix(p, ".json"):
			records++
		}
		return nil
	})
	if blobs != images || records != images {
		t.Errorf("%d archives and %d records in the cache, want %d", blobs, records, images)
	}
}

// TestDebianCancelled interrupts a build at several moments.
func TestDebianCancelled(t *testing.T) {
	needBootstrap(t)
	for _, at := range []string{"looking for packages", "downloading essential packages", "installing essential packages",
		"installing packages", "packing"} {
		t.Run(at, func(t *testing.T) {
			cache, tmp := t.TempDir(), t.TempDir()
			// A user namespace's root has to get into it.
			if err := errors.Join(os.Chmod(tmp, 0o755), os.Chmod(filepath.Dir(tmp), 0o755)); err != nil {
				t.Fatal(err)
			}
			t.Setenv("TMPDIR", tmp)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var once sync.Once
			var start time.Time
			_, err := (&Debian{CacheDir: cache}).Pull(ctx, Ref{Source: "debian", Version: "trixie"}, func(s Step) {
				if s.Text == at {
					once.Do(func() {
						start = time.Now()
						cancel()
					})
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			t.Logf("stopped after %v", time.Since(start))
			checkCache(t, cache, 0)
			if left, _ := os.ReadDir(tmp); len(left) > 0 {
				t.Errorf("left %v in TMPDIR", left)
			}
		})
	}
}
