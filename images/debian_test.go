package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/rootfs"
)

// fakeBootstrap puts a shell script in mmdebstrap's place. It gives the
// archive in $ARCHIVE and counts its runs in $RUNS; script runs before that.
func fakeBootstrap(t *testing.T, script string) (runs func() int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("mmdebstrap runs on Linux only")
	}
	dir := t.TempDir()
	log, archive := filepath.Join(dir, "runs"), writeFile(t, "archive", goodTar(t))
	head := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --unshare-helper ] && exit 0\nRUNS=%s ARCHIVE=%s\necho run >>\"$RUNS\"\n", log, archive)
	tail := "\ncat \"$ARCHIVE\"\n"
	for name, text := range map[string]string{"mmdebstrap": head + script + tail, "newuidmap": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("RUNS", log)
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	return func() int {
		data, _ := os.ReadFile(log)
		return strings.Count(string(data), "run")
	}
}

var trixie = Ref{Source: "debian", Version: "trixie"}

const aptOutput = `cat >&2 <<END
I: running apt-get update...
Get:1 somewhere trixie InRelease [140 kB]
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 a
Get:2 b
Unpacking a (1) ...
Unpacking b (1) ...
Setting up a (1) ...
Setting up b (1) ...
I: installing remaining packages inside the chroot...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Get:1 c
Unpacking c (1) ...
Setting up c (1) ...
I: creating tarball...
END
`

func TestDebianCache(t *testing.T) {
	runs := fakeBootstrap(t, aptOutput)
	cache := t.TempDir()
	var steps []Step
	img, err := (&Debian{CacheDir: cache}).Pull(t.Context(), trixie, func(s Step) { steps = append(steps, s) })
	if err != nil {
		t.Fatal(err)
	}
	var last []string
	for _, s := range steps {
		if s.Total > 0 && s.Done == s.Total {
			last = append(last, s.Text)
		}
	}
	want := "downloading essential packages, installing essential packages, downloading packages, installing packages"
	if got := strings.Join(last, ", "); got != want {
		t.Errorf("finished %s, want %s", got, want)
	}
	if img.Distro != "debian" || img.Name != "debian:trixie" {
		t.Errorf("got %+v", img)
	}
	readAll(t, img)
	checkCache(t, cache, 1)

	again, err := (&Debian{CacheDir: cache}).Pull(t.Context(), trixie, nil)
	if err != nil || again.ID != img.ID || runs() != 1 {
		t.Errorf("from the cache: %v, %d runs", err, runs())
	}
	readAll(t, again)
	if _, err := (&Debian{CacheDir: cache, Refresh: true}).Pull(t.Context(), trixie, nil); err != nil || runs() != 2 {
		t.Errorf("refresh: %v, %d runs", err, runs())
	}
	checkCache(t, cache, 1)
}

func readAll(t *testing.T, img *Image) {
	t.Helper()
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err != nil || n != img.Size {
		t.Errorf("read %d of %d bytes, %v", n, img.Size, err)
	}
}

func TestDebianOnce(t *testing.T) {
	runs := fakeBootstrap(t, "sleep 0.3")
	cache := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := (&Debian{CacheDir: cache}).Pull(t.Context(), trixie, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if runs() != 1 {
		t.Errorf("%d builds, want 1", runs())
	}
}

func TestDebianWaitEndsWithContext(t *testing.T) {
	fakeBootstrap(t, "sleep 30")
	cache := t.TempDir()
	builder, stop := context.WithCancel(t.Context())
	started, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var once sync.Once
		_, err := (&Debian{CacheDir: cache}).Pull(builder, trixie, func(Step) { once.Do(func() { close(started) }) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("builder: got %v", err)
		}
	}()
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := (&Debian{CacheDir: cache}).Pull(ctx, trixie, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	stop()
	<-done
	checkCache(t, cache, 0)
}

func TestDebianFailures(t *testing.T) {
	tests := []struct{ name, script, want, advice string }{
		{"no space", "echo 'dpkg: error: No space left on device' >&2; exit 25", "no space left", "TMPDIR"},
		{"no network", "echo \"E: Failed to fetch x  Temporary failure resolving 'deb'\" >&2; exit 1", "cannot be downloaded", "proxy"},
		{"expired", "echo 'E: Release file for x is expired (invalid since 1d)' >&2; exit 1", "not valid today", "clock"},
		{"keys", "echo 'E: The repository is not signed.' >&2; exit 1", "cannot be verified", "keyring"},
		{"other", "echo 'E: something' >&2; exit 1", "mmdebstrap failed: something", ""},
		{"silent", "exit 3", "exit status 3", ""},
		{"cut off", "head -c 700 $ARCHIVE; exit 0", "mmdebstrap's archive is cut off", ""},
		{"killed", "head -c 700 $ARCHIVE; kill -9 $$", "signal: killed", ""},
		{"bad archive", "echo hello; exit 0", "not a tar archive", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fakeBootstrap(t, tt.script)
			cache := t.TempDir()
			_, err := (&Debian{CacheDir: cache}).Pull(t.Context(), trixie, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(hint.Of(err), tt.advice) {
				t.Errorf("got %v, hint %q; want %q, hint %q", err, hint.Of(err), tt.want, tt.advice)
			}
			checkCache(t, cache, 0)
			if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
				t.Errorf("left %v in TMPDIR", left)
			}
		})
	}
}

func TestDebianWithoutTools(t *testing.T) {
	fakeBootstrap(t, "")
	t.Setenv("PATH", t.TempDir())
	_, err := (&Debian{CacheDir: t.TempDir()}).Pull(t.Context(), trixie, nil)
	if err == nil || !strings.Contains(hint.Of(err), "apt install mmdebstrap") {
		t.Errorf("got %v, hint %q", err, hint.Of(err))
	}
}

// TestDebianStops also wants what mmdebstrap started, and what it left running
// when it ended, to be gone.
func TestDebianStops(t *testing.T) {
	fakeBootstrap(t, `(trap "" INT; sleep 60; :) >/dev/null 2>&1 & echo $! >"$RUNS.pid"; echo started >&2; exec sleep 60`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pidFile := os.Getenv("RUNS") + ".pid"
	go func() {
		for ctx.Err() == nil {
			if data, err := os.ReadFile(pidFile); err == nil && strings.HasSuffix(string(data), "\n") {
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	cache := t.TempDir()
	start := time.Now()
	if _, err := (&Debian{CacheDir: cache}).Pull(ctx, trixie, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
	checkCache(t, cache, 0)
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	// A killed process takes a moment to end, and may stay as a zombie until the
	// system's init sees to it.
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("still running: %s", stat)
		}
	}
}

func TestDebianDamagedCache(t *testing.T) {
	runs := fakeBootstrap(t, "")
	cache := t.TempDir()
	for i, damage := range []func([]byte) []byte{
		func(b []byte) []byte { b[len(b)/2] ^= 0xff; return b },
		func(b []byte) []byte { return compressed(t, makeTar(t), compressors["zst"]) },
	} {
		img, err := (&Debian{CacheDir: cache}).Pull(t.Context(), trixie, nil)
		if err != nil {
			t.Fatal(err)
		}
		blobs, _ := filepath.Glob(filepath.Join(cache, "images", "blobs", "*"))
		data, err := os.ReadFile(blobs[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blobs[0], damage(data), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := img.Open(t.Context())
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(hint.Of(err), "built anew") {
			t.Errorf("got %v, hint %q", err, hint.Of(err))
		}
		if img, err = (&Debian{CacheDir: cache}).Pull(t.Context(), trixie, nil); err != nil || runs() != i+2 {
			t.Errorf("afterwards: %v, %d runs", err, runs())
		}
		readAll(t, img)
	}
}

func TestDebianLeftovers(t *testing.T) {
	fakeBootstrap(t, "")
	cache := t.TempDir()
	blobs := filepath.Join(cache, "images", "blobs")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	key := "debian-trixie-" + runtime.GOARCH
	for _, f := range []string{filepath.Join(blobs, "sha256-0.tar.zst"), filepath.Join(cache, "images", "tmp-"+key+"-1")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(f, then, then); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (&Debian{CacheDir: cache}).Pull(t.Context(), trixie, nil); err != nil {
		t.Fatal(err)
	}
	checkCache(t, cache, 1)
}

// fullDisk stands for a disk that takes a few bytes.
type fullDisk struct{ left int }

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, &os.PathError{Op: "write", Path: "blob", Err: syscall.ENOSPC}
	}
	return len(p), nil
}

func TestStoreOnFullDisk(t *testing.T) {
	big := makeTar(t, tar.Header{Name: "bin/sh"}, tar.Header{Name: strings.Repeat("long", 20)})
	_, err := new(cacheEntry).pack(t.Context(), bytes.NewReader(big), &fullDisk{left: 10}, new(rootfs.State))
	if err == nil || err.Error() != "write blob: "+syscall.ENOSPC.Error() {
		t.Errorf("got %v", err)
	}
	if advice := hint.Of(cachedir.NoSpace(err, "/cache")); !strings.Contains(advice, "/cache") {
		t.Errorf("got hint %q", advice)
	}
}

func TestDebianElsewhere(t *testing.T) {
	if runtime.GOOS == "linux" {
		t.Skip("says what happens on other systems")
	}
	_, err := (&Debian{CacheDir: t.TempDir()}).Pull(t.Context(), trixie, nil)
	if err == nil || !strings.Contains(hint.Of(err), "--from-file") {
		t.Errorf("got %v, hint %q", err, hint.Of(err))
	}
}
