package images

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"runtime"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/images/internal/mmdebstrap"
	"github.com/lsub/lsub/rootfs"
)

// Debian is the Source of Debian suites. It builds a root file system with
// mmdebstrap, so it works on Linux only, as root or as a user with subordinate
// ids. Later Pulls take it from the cache, without a network. Where several
// processes want the same image, one builds it and the others wait.
//
// An image does not depend on the host that builds it.
type Debian struct {
	CacheDir string       // lsub's cache directory
	Refresh  bool         // build the image anew, with today's packages
	Log      *slog.Logger // may be nil
}

var _ Source = (*Debian)(nil)

// DefaultSuite is the suite that "debian" alone means.
const DefaultSuite = "trixie"

// debianSuites are the suites that are known to boot in lsub.
var debianSuites = []struct{ name, number string }{
	{"trixie", "13"}, {"bookworm", "12"}, {"bullseye", "11"}, {"sid", ""},
}

// CanBuildDebian tells whether this host can build Debian suites.
func CanBuildDebian() bool {
	_, err := exec.LookPath("mmdebstrap")
	return runtime.GOOS == "linux" && err == nil
}

// debianBuild is one Pull's work.
type debianBuild struct {
	cacheEntry
	src     *Debian
	suite   string
	options debianOptions
}

// Pull returns the image of the suite that ref names.
func (d *Debian) Pull(ctx context.Context, ref Ref, progress Progress) (*Image, error) {
	suite, options, err := debianSuite(ref.Version)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%s-%s", suite, cmp.Or(ref.Arch, runtime.GOARCH))
	if text := options.String(); text != "" { // in front: a key must not begin another one
		key = fmt.Sprintf("%x-%s", sha256.Sum256([]byte(text)), key)
	}
	b := &debianBuild{newCacheEntry(d.CacheDir, "debian-"+key, ref, progress, d.Log), d, suite, options}
	rec, err := b.pull(ctx)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, cachedir.NoSpace(err, d.CacheDir))
	}
	return b.image(rec, ref.Source), nil
}

func (b *debianBuild) pull(ctx context.Context) (*record, error) {
	started := time.Now()
	if !b.src.Refresh {
		if rec := b.cached(); rec != nil {
			return rec, nil
		}
	}
	if runtime.GOOS != "linux" {
		return nil, hint.New(errors.New("a Debian suite is built with mmdebstrap, which runs on Linux only"),
			"install a root file system's tar archive with --from-file")
	}
	lock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	// Another process may have built it while this one waited.
	if rec := b.cached(); rec != nil && (!b.src.Refresh || rec.Built.After(started)) {
		return rec, nil
	}
	b.removeLeftovers()
	return b.build(ctx)
}

// cached returns the image's record, or nil where it has to be built.
func (b *debianBuild) cached() *record {
	if rec := b.record(); rec != nil && rec.Recipe == b.options.recipe() {
		return rec
	}
	return nil
}

// build makes the image and puts it into the cache.
func (b *debianBuild) build(ctx context.Context) (*record, error) {
	return b.save(func(w io.Writer) (s *summary, rec *record, err error) {
		run := &mmdebstrap.Build{
			Suite: b.suite, Arch: b.arch, Include: b.options.include, Variant: b.options.variant, Stale: b.options.stale,
			Report: func(s mmdebstrap.Step) { b.progress.report(Step(s)) }, Log: b.log,
		}
		installed, err := run.Run(ctx, func(ctx context.Context, tar io.Reader) (err error) {
			s, err = b.pack(ctx, tar, w, new(rootfs.State))
			return err
		})
		return s, &record{Recipe: b.options.recipe(), Packages: installed}, err
	})
}
