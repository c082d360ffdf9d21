// Package guestimage has what a VM boots: the kernel, initrd and system image
// that are embedded in lsub. [Open] unpacks them into the cache, once per
// version of lsub. Command guestbuild, below this package, builds them.
package guestimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/guestimage/manifest"
	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/images/internal/ctxio"
)

// Guest is what a VM boots: three files in the cache, read-only by agreement.
type Guest struct {
	Kernel string // path of the uncompressed kernel: ELF vmlinux or arm64 Image
	Initrd string // path of the plain cpio archive with lsubinit
	System string // path of the EROFS image that the VM mounts on /system

	Manifest manifest.Manifest
}

// guestAge is how long the guest of another version of lsub stays in the cache.
const guestAge = 30 * 24 * time.Hour

// Open returns the guest that is embedded in this program, unpacked below
// cacheDir/guest. The first call takes about a second and checks each byte;
// later ones only look whether the files are there. Several processes may call
// it at once. An error for a program without a guest carries a hint.
func Open(ctx context.Context, cacheDir string) (*Guest, error) {
	sub, err := fs.Sub(embedded, path.Join("embedded", runtime.GOARCH))
	if err != nil {
		return nil, err
	}
	return openFS(ctx, sub, cacheDir)
}

// OpenDir is [Open] for a guest that command guestbuild has written to a directory, of any
// architecture.
func OpenDir(ctx context.Context, dir, cacheDir string) (*Guest, error) {
	if _, err := ReadManifest(dir); err != nil {
		return nil, err
	}
	return openFS(ctx, os.DirFS(dir), cacheDir)
}

// ReadManifest returns what a directory of command guestbuild says of its guest.
func ReadManifest(dir string) (m manifest.Manifest, err error) {
	data, err := os.ReadFile(filepath.Join(dir, manifest.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return m, hint.New(fmt.Errorf("%s has no guest: %w", dir, err), "'./task guest ARCH=arm64' builds one, for instance")
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, fmt.Errorf("guest in %s: %w", dir, err)
	}
	return m, nil
}

// Embedded returns what the guest is that is embedded in this program, and its name: 16
// hexadecimal digits that differ where anything in it does.
func Embedded() (name string, m manifest.Manifest, err error) {
	sub, err := fs.Sub(embedded, path.Join("embedded", runtime.GOARCH))
	if err != nil {
		return "", m, err
	}
	return describe(sub)
}

func describe(files fs.FS) (name string, m manifest.Manifest, err error) {
	data, err := fs.ReadFile(files, manifest.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", m, hint.New(fmt.Errorf("this lsub was built without a guest for %s", runtime.GOARCH),
			"run './task guest', then build lsub again")
	}
	if err != nil {
		return "", m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", m, fmt.Errorf("embedded guest: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), m, nil
}

func openFS(ctx context.Context, files fs.FS, cacheDir string) (*Guest, error) {
	name, m, err := describe(files)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cacheDir, "guest", name)
	g := &Guest{
		Kernel:   filepath.Join(dir, "kernel"),
		Initrd:   filepath.Join(dir, "initrd"),
		System:   filepath.Join(dir, "system.erofs"),
		Manifest: m,
	}
	jobs := []unpackJob{
		{"kernel.zst", g.Kernel, m.Files.KernelImage},
		{"initrd.zst", g.Initrd, m.Files.Initrd},
		{"system.zst", g.System, m.Files.System},
	}
	missing := jobs[:0]
	for _, j := range jobs {
		if info, err := os.Lstat(j.path); err != nil || !info.Mode().IsRegular() || info.Size() != j.want.Size {
			missing = append(missing, j)
		}
	}
	if len(missing) == 0 {
		return g, nil
	}
	if err := unpackAll(ctx, files, dir, missing); err != nil {
		return nil, fmt.Errorf("unpack the guest: %w", cachedir.NoSpace(err, dir))
	}
	removeOldGuests(filepath.Dir(dir), filepath.Base(dir))
	return g, nil
}

// unpackJob is one file to unpack.
type unpackJob struct {
	name string // of the embedded file
	path string // where to
	want manifest.File
}

func unpackAll(ctx context.Context, files fs.FS, dir string, jobs []unpackJob) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	results := make(chan error, len(jobs))
	for _, j := range jobs {
		go func() { results <- unpack(ctx, files, j) }()
	}
	var errs []error
	for range jobs {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// unpack puts one file in place, whole or not at all. Another process that
// does the same at the same time puts the same bytes there.
func unpack(ctx context.Context, files fs.FS, j unpackJob) error {
	in, err := files.Open(j.name)
	if err != nil {
		return fmt.Errorf("embedded guest: %w", err)
	}
	defer in.Close()
	z, err := zstd.NewReader(ctxio.NewReader(ctx, in))
	if err != nil {
		return err
	}
	defer z.Close()
	tmp, err := atomicfile.Create(filepath.Dir(j.path), tempPrefix)
	if err != nil {
		return err
	}
	defer tmp.Discard()
	h := sha256.New()
	// One byte more than wanted is enough to see that there are too many.
	n, err := io.Copy(io.MultiWriter(tmp, h), io.LimitReader(z, j.want.Size+1))
	if err != nil {
		return err
	}
	if n != j.want.Size || hex.EncodeToString(h.Sum(nil)) != j.want.SHA256 {
		return fmt.Errorf("embedded guest: %s is damaged", j.name)
	}
	err = tmp.Commit(j.path)
	if info, statErr := os.Stat(j.path); err != nil && statErr == nil && info.Size() == j.want.Size {
		return nil // Windows: another process was faster and its VM has the file open
	}
	return err
}

const tempPrefix = "tmp-"

// removeOldGuests removes guests of other versions of lsub that were unpacked
// long ago, and files of unpackings that were killed. What cannot be removed,
// because a VM runs from it, stays until another time.
func removeOldGuests(dir, keep string) {
	guests, _ := os.ReadDir(dir)
	for _, g := range guests {
		full := filepath.Join(dir, g.Name())
		if g.Name() != keep && cachedir.OlderThan(full, guestAge) {
			os.RemoveAll(full)
		}
	}
	files, _ := os.ReadDir(filepath.Join(dir, keep))
	for _, f := range files {
		full := filepath.Join(dir, keep, f.Name())
		if strings.HasPrefix(f.Name(), tempPrefix) && cachedir.OlderThan(full, time.Hour) {
			os.Remove(full)
		}
	}
}
