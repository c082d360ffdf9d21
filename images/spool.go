package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/images/internal/ctxio"
)

// Spool copies an archive that can be read only once, such as stdin, to a
// temporary file in the cache directory, and returns a reference to it for
// [Tarball]. Messages call it by label. The caller must call remove after it has
// used the image. Where a Read of r blocks when ctx ends, a goroutine stays
// behind in it.
func Spool(ctx context.Context, cacheDir, label string, r io.Reader, progress Progress) (ref Ref, remove func(), err error) {
	if err := os.MkdirAll(cacheDir, 0o700); err != nil {
		return Ref{}, nil, err
	}
	removeSpooled(cacheDir)
	f, err := os.CreateTemp(cacheDir, spoolPrefix)
	if err != nil {
		return Ref{}, nil, cachedir.NoSpace(err, cacheDir)
	}
	remove = func() { os.Remove(f.Name()) }
	from := &progressReader{r: ctxio.NewReader(ctx, r), step: Step{Text: "reading " + label, Bytes: true}, progress: progress}
	progress.report(from.step)
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(f, from)
		copied <- errors.Join(err, f.Close())
	}()
	select {
	case err = <-copied:
	case <-ctx.Done():
		f.Close() // or Windows keeps the file
		err = context.Cause(ctx)
	}
	if err != nil {
		remove()
		return Ref{}, nil, fmt.Errorf("%s: %w", label, cachedir.NoSpace(err, cacheDir))
	}
	return Ref{Source: "file", Version: f.Name(), Label: label}, remove, nil
}

const spoolPrefix = "stdin-"

// spoolAge is what no import takes: older files were left by one that was killed.
const spoolAge = 24 * time.Hour

func removeSpooled(cacheDir string) {
	files, _ := filepath.Glob(filepath.Join(cacheDir, spoolPrefix+"*"))
	for _, f := range files {
		if cachedir.OlderThan(f, spoolAge) {
			os.Remove(f)
		}
	}
}
