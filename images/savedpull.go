package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/lsub/lsub/images/internal/ctxio"
	"github.com/lsub/lsub/rootfs"
)

// pullSaved flattens the saved image at ref's path into the cache.
func (t *Tarball) pullSaved(ctx context.Context, ref Ref, progress Progress) (*Image, error) {
	arch := t.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	files, err := t.openSaved(ctx, ref.Version, progress)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	c, layers, err := savedImage(ctx, files, arch)
	if err != nil {
		return nil, err
	}
	// What is saved is known by its digest, not by the file's name.
	key := fmt.Sprintf("saved-%s-%s", strings.TrimPrefix(c.digest, "sha256:"), arch)
	entry := newCacheEntry(t.CacheDir, key, ref, progress, nil)
	entry.arch = arch
	f := &flattener{layers: layers, state: &rootfs.State{MaxBytes: t.MaxBytes}}
	rec, err := entry.flattened(ctx, f, record{Digest: c.digest, Config: &c.config})
	if err != nil {
		return nil, err
	}
	return entry.image(rec, distroName(ref.Version)), nil
}

// openSaved opens the files of a saved image. An archive that is compressed is
// unpacked to a temporary file first, since its parts come in no order.
func (t *Tarball) openSaved(ctx context.Context, path string, progress Progress) (savedFiles, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		root, err := os.OpenRoot(path)
		return savedDir{root}, pathError(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, pathError(err)
	}
	head := make([]byte, tarBlock)
	if _, err := io.ReadFull(f, head); err != nil {
		f.Close()
		return nil, damaged(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	if string(head[257:262]) == "ustar" {
		return openSavedTar(ctx, f)
	}
	defer f.Close()
	return t.unpackSaved(ctx, f, progress)
}

// unpackSaved decompresses an archive to a file without a name.
func (t *Tarball) unpackSaved(ctx context.Context, packed *os.File, progress Progress) (savedFiles, error) {
	info, err := packed.Stat()
	if err != nil {
		return nil, err
	}
	z, err := decompressGuarded(&progressReader{r: ctxio.NewReader(ctx, packed), progress: progress, step: Step{
		Text: "decompressing the archive", Total: info.Size(), Bytes: true}}, t.MaxBytes)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	if err := os.MkdirAll(t.CacheDir, 0o700); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(t.CacheDir, "saved-")
	if err != nil {
		return nil, err
	}
	most := t.MaxBytes
	if most == 0 {
		most = rootfs.DefaultMaxBytes
	}
	n, err := io.Copy(tmp, io.LimitReader(z, most+1))
	if err == nil && n > most {
		err = &rootfs.LimitError{What: "bytes", Limit: most}
	}
	if _, seekErr := tmp.Seek(0, io.SeekStart); err != nil || seekErr != nil {
		tmp.Close()
		return nil, errors.Join(err, seekErr, os.Remove(tmp.Name()))
	}
	s, err := openSavedTar(ctx, tmp)
	if err != nil {
		return nil, errors.Join(err, os.Remove(tmp.Name()))
	}
	return &temporary{s, tmp.Name()}, nil
}

// temporary removes the archive that was unpacked for it.
type temporary struct {
	savedFiles
	path string
}

func (t *temporary) Close() error { return errors.Join(t.savedFiles.Close(), os.Remove(t.path)) }
