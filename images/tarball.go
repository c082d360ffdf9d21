package images

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/rootfs"
)

// Tarball is the Source of images in files: tar archives, such as docker export,
// WSL and most distros publish, and squashfs images.
//
// Pull reads the archive once, to check each entry and to compute its ID. It
// makes no copy: Image.Open reads the file again and compares the ID, so it
// notices a file that has changed. A copy would take disk space for an archive
// that is used once.
//
// A saved container image (from docker save, or an OCI layout, packed or as a
// directory) is flattened into the cache, like one from a registry.
type Tarball struct {
	// CacheDir is lsub's cache directory. Without it saved images are refused.
	CacheDir string

	// Arch is the wanted architecture, as GOARCH; "" is the host's. It selects
	// one of a saved image's; an archive with programs for another is refused.
	Arch string

	// MaxBytes limits the sum of the files' sizes, so that no archive fills the
	// disk. 0 means rootfs.DefaultMaxBytes.
	MaxBytes int64
}

var _ Source = (*Tarball)(nil)

// Pull checks the archive that a FileRef names.
func (t *Tarball) Pull(ctx context.Context, ref Ref, progress Progress) (*Image, error) {
	path, shown := ref.Version, cmp.Or(ref.Label, ref.Version)
	s, err := t.check(ctx, path, progress)
	if t.CacheDir != "" && isSaved(path, err) {
		img, err := t.pullSaved(ctx, ref, progress)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shown, cachedir.NoSpace(notForDistros(err), t.CacheDir))
		}
		img.Name = cmp.Or(ref.Label, img.Name)
		return img, nil
	}
	if t.CacheDir != "" && isBehindLink(err) {
		img, err := t.pullTree(ctx, ref, progress)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shown, cachedir.NoSpace(err, t.CacheDir))
		}
		return img, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return &Image{
		ID: s.id, Size: s.size, Name: cmp.Or(ref.Label, ref.String()), Distro: cmp.Or(s.setup.Name, distroName(path)), Setup: s.setup,
		open: func(ctx context.Context) (io.ReadCloser, error) { return openTarball(ctx, path, s.id) },
	}, nil
}

func (t *Tarball) check(ctx context.Context, path string, progress Progress) (*summary, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, pathError(err)
	}
	if info.IsDir() {
		return nil, hint.New(errors.New("is a directory"), "make an archive of it with 'tar -C "+path+" -cf FILE .'")
	}
	if !info.Mode().IsRegular() {
		return nil, hint.New(errors.New("is not a regular file"), "save the archive to a file first: it is read twice")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, pathError(err)
	}
	defer f.Close()
	step := Step{Text: "checking the archive", Total: info.Size(), Bytes: true}
	z, err := plainTar(ctx, f, t.MaxBytes, progress.counted(step))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	limits := packedLimits(t.MaxBytes, info.Size())
	s, err := scan(ctx, z, t.Arch, limits)
	return s, outOfProportion(err, limits, t.MaxBytes)
}

// isSaved tells, after check found err, whether path is a saved image.
func isSaved(path string, err error) bool {
	var unusable *rootfs.UnusableError
	if errors.As(err, &unusable) {
		return unusable.Saved
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return false
	}
	_, err = os.Lstat(filepath.Join(path, "oci-layout"))
	return err == nil
}

// isBehindLink tells whether an archive was refused for an entry behind a link of its own.
func isBehindLink(err error) bool {
	var entry *rootfs.EntryError
	return errors.As(err, &entry) && entry.BehindLink
}

// treeFlattener flattens an archive of a tree, as the one layer that it is.
func treeFlattener(path string, size, maxBytes int64) *flattener {
	l := layer{size: size, open: func() (io.ReadCloser, error) { return os.Open(path) }}
	return &flattener{layers: []layer{l}, plain: true, state: &rootfs.State{MaxBytes: maxBytes}}
}

// pullTree puts an archive into the cache that has entries behind links of its own. Where
// they lie was worked out in memory, as container engines do it for layers; what becomes
// of it has no such entry.
func (t *Tarball) pullTree(ctx context.Context, ref Ref, progress Progress) (*Image, error) {
	path := ref.Version
	f, err := os.Open(path)
	if err != nil {
		return nil, pathError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sum, err := sumOf(ctx, f)
	if err != nil {
		return nil, err
	}
	entry := newCacheEntry(t.CacheDir, "tree-"+strings.TrimPrefix(sum, "sha256:"), ref, progress, nil)
	entry.arch = t.Arch
	rec, err := entry.flattened(ctx, treeFlattener(path, info.Size(), t.MaxBytes), record{Digest: sum})
	if err != nil {
		return nil, err
	}
	img := entry.image(rec, distroName(path))
	img.Name = cmp.Or(ref.Label, ref.String())
	return img, nil
}

// openTarball opens the archive for its second reading.
func openTarball(ctx context.Context, path, id string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	z, err := plainTar(ctx, f, math.MaxInt64, func(int64) {}) // it was checked
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &verifier{
		ReadCloser: &stack{z, []io.Closer{z, f}},
		sum:        sha256.New(), want: id,
		bad: func() error {
			return hint.New(fmt.Errorf("%s has changed since it was checked", path), "try again when nothing writes to it")
		},
	}, nil
}

// pathError takes the path out of an error whose caller names it.
func pathError(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// distroName makes a name for a distro of an archive's file name:
// "/x/Fedora-42.x86_64.tar.xz" gives "fedora-42".
func distroName(path string) string {
	base := strings.ToLower(filepath.Base(path))
	for _, part := range []string{".tar", ".tgz", ".txz", ".tzst", ".wsl", ".x86_64", ".amd64", ".aarch64", ".arm64"} {
		base, _, _ = strings.Cut(base, part)
	}
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, base)
	if name = strings.Trim(name, "-_."); name == "" {
		return "distro"
	}
	return name
}

// progressReader reports how much was read of a file, not more often than each
// mebibyte.
type progressReader struct {
	r        io.Reader
	step     Step
	reported int64
	progress Progress
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.step.Done += int64(n)
	if p.step.Done-p.reported >= 1<<20 || err == io.EOF && p.step.Done > p.reported {
		p.reported = p.step.Done
		p.progress.report(p.step)
	}
	return n, err
}
