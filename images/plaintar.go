package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/ctxio"
	"github.com/lsub/lsub/images/internal/squashfs"
)

// plainTar returns the plain tar archive of what is in f, from its start on: an
// archive in one of the formats, or a squashfs image, which becomes one on the
// way. report is told how much of f was read, of a squashfs image how much was
// written. Closing the result does not close f.
func plainTar(ctx context.Context, f *os.File, maxBytes int64, report func(int64)) (io.ReadCloser, error) {
	head := make([]byte, len(squashfs.Magic))
	if n, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, pathError(err)
	} else if string(head[:n]) == squashfs.Magic {
		return squashTar(ctx, f, maxBytes, report)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return decompressGuarded(&countReader{ctxio.NewReader(ctx, f), report}, maxBytes)
}

// squashTar is plainTar for a squashfs image.
func squashTar(ctx context.Context, f *os.File, maxBytes int64, report func(int64)) (io.ReadCloser, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	img, err := squashfs.Open(f, info.Size())
	if err != nil {
		return nil, squashError(err)
	}
	r, w := io.Pipe()
	s := &squashReader{&countReader{r, report}, r, make(chan struct{})}
	go func() {
		defer close(s.done)
		w.CloseWithError(squashError(img.WriteTar(ctx, w)))
	}()
	in := new(atomic.Int64)
	in.Store(info.Size())
	return &guarded{ReadCloser: s, in: in, floor: bombFloor(maxBytes)}, nil
}

// squashReader reads what a goroutine writes; closing it ends that one and
// waits for it.
type squashReader struct {
	io.Reader
	pipe *io.PipeReader
	done chan struct{}
}

func (s *squashReader) Close() error {
	s.pipe.CloseWithError(errStopped)
	<-s.done
	return nil
}

// squashError says in the user's words why a squashfs image cannot be read.
func squashError(err error) error {
	if err == nil || errors.Is(err, errStopped) {
		return err
	}
	if errors.Is(err, squashfs.ErrUnsupported) {
		return hint.New(fmt.Errorf("cannot be read: %w", err), "unpack it with 'unsquashfs', and install the tree as a tar archive")
	}
	if errors.As(err, new(*squashfs.FormatError)) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &squashDamage{damaged(err)}
	}
	return err
}

// squashDamage is the error of an image's bytes, which the reader of the
// archive made of it must not take for that one's.
type squashDamage struct{ error }

func (e *squashDamage) Unwrap() error { return e.error }
