package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guesttest"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
	"github.com/lsub/lsub/supervisor"
)

// TestMain makes the test binary an lsub over a fake VM, for the scripts and
// for the supervisors that it starts itself.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lsub":        func() { os.Exit(run(os.Args, fakeBackend())) },
		"lsub-vz":     func() { os.Exit(run(os.Args, vzBackend())) },
		"lsub-hv":     func() { os.Exit(run(os.Args, hvBackend())) },
		"lsub-system": func() { os.Exit(run(os.Args, systemBackend())) },
	})
}

// fakeBackend is what lsub works with in tests. Words in LSUBTEST, which lsub
// itself knows nothing of, make trouble.
func fakeBackend() backend {
	trouble := map[string]bool{}
	for _, word := range strings.Fields(os.Getenv("LSUBTEST")) {
		trouble[word] = true
	}
	b := backend{
		version: guest.Version,
		driver: func(*slog.Logger) (hypervisor.Driver, error) {
			return fakeDriver(trouble), nil
		},
		guest:  fakeGuestFiles,
		images: func(_ images.Ref, cache string, _ *slog.Logger) images.Source { return fakeSource{cache, trouble} },
		catalogues: func(log *slog.Logger) (list []catalogue.Catalogue) {
			for _, address := range strings.Fields(os.Getenv("LSUBTEST_CATALOGUES")) {
				list = append(list, catalogue.At(address, log))
			}
			return list
		},
		bootstraps: func() bool { return !trouble["no-mmdebstrap"] },
		pauseCheck: time.Millisecond,
	}
	if v := os.Getenv("LSUBTEST_VERSION"); v != "" {
		b.version = v
	}
	if trouble["impatient"] {
		b.patience = 100 * time.Millisecond
	}
	if trouble["never-up"] {
		b.bootTimeout = 100 * time.Millisecond
	}
	return b
}

func fakeDriver(trouble map[string]bool) *hvtest.Fake {
	fake := &hvtest.Fake{}
	if trouble["no-hypervisor"] {
		fake.CheckErr = hint.New(errors.New("no hypervisor was found"), "install one")
	}
	fake.Guest = func(g *hvtest.Guest) error {
		if trouble["never-up"] {
			g.Console().Write([]byte("[    0.1] Linux version 0.0-fake\n[    0.2] waiting for a disk that never comes\x1b[2J\n"))
			<-g.Context().Done()
			return nil
		}
		if fifo := os.Getenv("LSUBTEST_BOOT"); fifo != "" { // tell the test, and go on when it says so
			if err := errors.Join(os.WriteFile(fifo, nil, 0), os.WriteFile(fifo+".go", nil, 0)); err != nil {
				return err
			}
		}
		if trouble["dies-at-boot"] {
			g.Console().Write([]byte("[    0.1] Kernel panic - not syncing: no init\n"))
			return errors.New("the guest crashed")
		}
		o := guesttest.Options{
			Version: guest.Version, Console: g.Console(), Stubborn: trouble["stubborn"],
			Pause: fake.VMs()[0].SetPaused,
		}
		for _, d := range g.Config().Disks {
			if d.Serial == guest.DataDisk {
				o.Disk = d.Path
			}
		}
		if trouble["no-space"] {
			o.MaxImage = 1
		}
		if trouble["bad-disk"] {
			o.HelloError = "the data disk is damaged"
		}
		return guesttest.Run(g, o)
	}
	return fake
}

func fakeGuestFiles(_ context.Context, cache string) (supervisor.GuestFiles, error) {
	f := supervisor.GuestFiles{
		Kernel: filepath.Join(cache, "kernel"), Initrd: filepath.Join(cache, "initrd"), System: filepath.Join(cache, "system"),
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return f, err
	}
	for _, name := range []string{f.Kernel, f.Initrd, f.System} {
		if err := os.WriteFile(name, []byte("fake"), 0o600); err != nil {
			return f, err
		}
	}
	return f, nil
}

// fakeSource makes a tiny image for a Debian suite; other images are real.
type fakeSource struct {
	cache   string
	trouble map[string]bool
}

func (s fakeSource) Pull(ctx context.Context, ref images.Ref, progress images.Progress) (*images.Image, error) {
	if ref.Source != "debian" {
		return images.SourceOf(ref, s.cache, nil).Pull(ctx, ref, progress)
	}
	if fifo := os.Getenv("LSUBTEST_PULL"); fifo != "" { // tell the test, and wait to be interrupted
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		f.Close()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.trouble["no-image"] {
		return nil, hint.New(errors.New("no package mirror answers"), "check the network")
	}
	progress(images.Step{Text: "downloading packages", Done: 1, Total: 2})
	path := filepath.Join(s.cache, ref.Version+".tar")
	if err := os.MkdirAll(s.cache, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, tinyImage(ref.Version), 0o600); err != nil {
		return nil, err
	}
	img, err := (&images.Tarball{}).Pull(ctx, images.FileRef(path), nil)
	if err != nil {
		return nil, err
	}
	img.Name, img.Distro = ref.String(), "debian"
	if ref.Version != "trixie" {
		img.Distro += "-" + ref.Version
	}
	return img, nil
}

// tinyImage is an archive that may become a distro. setup is what it has as
// /etc/wsl-distribution.conf, if anything.
func tinyImage(suite string, setup ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"./", "./bin/"} {
		w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755})
	}
	add := func(name string, mode int64, body string) {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(body))})
		w.Write([]byte(body))
	}
	add("./bin/sh", 0o755, suite)
	for _, text := range setup {
		add("./etc/wsl-distribution.conf", 0o644, text)
	}
	w.Close()
	return b.Bytes()
}
