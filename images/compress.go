package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Format is an archive format that lsub writes.
type Format string

// The formats.
const (
	FormatTar     Format = "tar"
	FormatTarGzip Format = "tar.gz"
	FormatTarXz   Format = "tar.xz"
	FormatTarZstd Format = "tar.zst"
	FormatOCI     Format = "oci" // a container image, as an OCI layout
)

// Formats lists all formats.
var Formats = []Format{FormatTar, FormatTarGzip, FormatTarXz, FormatTarZstd, FormatOCI}

var endings = []struct {
	ending string
	format Format
}{
	{".tar", FormatTar}, {".tar.gz", FormatTarGzip}, {".tgz", FormatTarGzip}, {".wsl", FormatTarGzip},
	{".tar.xz", FormatTarXz}, {".txz", FormatTarXz}, {".tar.zst", FormatTarZstd}, {".tzst", FormatTarZstd},
}

// FormatOf returns the format that the ending of a file's name stands for, or "".
func FormatOf(path string) Format {
	base := strings.ToLower(filepath.Base(path))
	for _, e := range endings {
		if strings.HasSuffix(base, e.ending) {
			return e.format
		}
	}
	return ""
}

// Compress calls write, compresses the plain archive that it writes, on all
// CPUs, and writes the result to w. f is one of the tar formats. Where it
// returns an error, w has a part of the archive. It stops compressing at once
// when write fails or ctx ends.
func Compress(ctx context.Context, w io.Writer, f Format, write func(io.Writer) error) error {
	z, err := newCompressor(w, f)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, z.Abort)
	defer stop()
	if err = write(z); err == nil {
		err = ctx.Err()
	}
	return finish(z, err)
}

// compressor compresses what is written to it. Close must be called, and makes it
// whole; after Abort, which may be called at any time and by anybody, it only
// tidies up.
type compressor interface {
	io.WriteCloser
	Abort()
}

// finish closes a compressor to which everything was written, or not: then err
// says why.
func finish(z compressor, err error) error {
	if err != nil {
		z.Abort()
	}
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	return err
}

// errAborted says that nobody wants what is left to compress.
var errAborted = fmt.Errorf("given up: %w", context.Canceled)

func newCompressor(w io.Writer, f Format) (compressor, error) {
	switch f {
	case FormatTar:
		return &plainWriter{gate{w: w}}, nil
	case FormatTarGzip:
		return newBlockWriter(w, 1<<20, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }), nil
	case FormatTarXz:
		// As large as xz's own window: hardly anything is lost between blocks.
		return newBlockWriter(w, 8<<20, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }), nil
	case FormatTarZstd:
		g := &gate{w: w}
		z, err := zstd.NewWriter(g)
		return &zstdWriter{z, g}, err
	}
	return nil, fmt.Errorf("%q is no format of an archive", f)
}

// gate is a writer that can be shut.
type gate struct {
	w    io.Writer
	shut atomic.Bool
}

func (g *gate) Write(p []byte) (int, error) {
	if g.shut.Load() {
		return 0, errAborted
	}
	return g.w.Write(p)
}

func (g *gate) Abort() { g.shut.Store(true) }

type plainWriter struct{ gate }

func (*plainWriter) Close() error { return nil }

type zstdWriter struct {
	*zstd.Encoder
	*gate
}

func (z *zstdWriter) Write(p []byte) (int, error) {
	if z.shut.Load() {
		return 0, errAborted
	}
	return z.Encoder.Write(p)
}

// blockWriter compresses blocks each for itself, on all CPUs: gzip and xz let
// compressed files follow each other, and mean the whole.
type blockWriter struct {
	size  int // of a block
	open  func(io.Writer) (io.WriteCloser, error)
	block []byte
	any   bool
	queue chan chan packedBlock // in order
	ended chan struct{}         // closed when nothing is written any more

	once sync.Once
	stop chan struct{} // closed when nothing is compressed any more; then err says why
	err  error
}

type packedBlock struct {
	data []byte
	err  error
}

func newBlockWriter(w io.Writer, size int, open func(io.Writer) (io.WriteCloser, error)) *blockWriter {
	b := &blockWriter{
		size: size, open: open, queue: make(chan chan packedBlock, runtime.GOMAXPROCS(0)),
		ended: make(chan struct{}), stop: make(chan struct{}),
	}
	go func() {
		defer close(b.ended)
		for c := range b.queue {
			p := <-c
			if p.err == nil && !b.stopped() {
				_, p.err = w.Write(p.data)
			}
			if p.err != nil {
				b.fail(p.err)
			}
		}
	}()
	return b
}

func (b *blockWriter) fail(err error) {
	b.once.Do(func() {
		b.err = err
		close(b.stop)
	})
}

func (b *blockWriter) Abort() { b.fail(errAborted) }

func (b *blockWriter) stopped() bool {
	select {
	case <-b.stop:
		return true
	default:
		return false
	}
}

func (b *blockWriter) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		if b.block == nil {
			b.block = make([]byte, 0, b.size)
		}
		k := copy(b.block[len(b.block):b.size], p)
		b.block = b.block[:len(b.block)+k]
		n, p = n+k, p[k:]
		if len(b.block) == b.size {
			b.start()
		}
		if b.stopped() {
			return n, b.err
		}
	}
	return n, nil
}

// start has the block compressed, as soon as there is a CPU for it.
func (b *blockWriter) start() {
	block, c := b.block, make(chan packedBlock, 1)
	b.block, b.any = nil, true
	select {
	case b.queue <- c:
	case <-b.stop:
		return
	}
	go func() {
		var out bytes.Buffer
		err := b.pack(&out, block)
		c <- packedBlock{out.Bytes(), err}
	}()
}

// pack compresses one block, as far as somebody wants it: xz takes seconds.
func (b *blockWriter) pack(out io.Writer, block []byte) error {
	z, err := b.open(out)
	if err != nil {
		return err
	}
	for piece := range slices.Chunk(block, 64<<10) {
		if b.stopped() {
			return b.err
		}
		if _, err := z.Write(piece); err != nil {
			return err
		}
	}
	return z.Close()
}

// Close compresses the rest and waits until all is written.
func (b *blockWriter) Close() error {
	if (len(b.block) > 0 || !b.any) && !b.stopped() {
		b.start()
	}
	close(b.queue)
	<-b.ended
	if b.stopped() {
		return b.err
	}
	return nil
}
