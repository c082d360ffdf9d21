package images

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Format is a form of an archive that lsub writes.
type Format string

// The formats.
const (
	FormatTar     Format = "tar"
	FormatTarGzip Format = "tar.gz"
	FormatTarXz   Format = "tar.xz"
	FormatTarZstd Format = "tar.zst"
	FormatOCI     Format = "oci" // a container image, as an OCI layout
)

// Formats lists them, for people.
var Formats = []Format{FormatTar, FormatTarGzip, FormatTarXz, FormatTarZstd, FormatOCI}

var endings = []struct {
	ending string
	format Format
}{
	{".tar", FormatTar}, {".tar.gz", FormatTarGzip}, {".tgz", FormatTarGzip}, {".wsl", FormatTarGzip},
	{".tar.xz", FormatTarXz}, {".txz", FormatTarXz}, {".tar.zst", FormatTarZstd}, {".tzst", FormatTarZstd},
}

// FormatOf returns the format that a file's name speaks of, or "".
func FormatOf(path string) Format {
	base := strings.ToLower(filepath.Base(path))
	for _, e := range endings {
		if strings.HasSuffix(base, e.ending) {
			return e.format
		}
	}
	return ""
}

// Compress returns a writer that compresses a plain archive to w in a format
// of tar, on all CPUs. The archive is whole when Close has returned nil; Close
// must be called, and does not close w.
func Compress(w io.Writer, f Format) (io.WriteCloser, error) {
	switch f {
	case FormatTar:
		return plainWriter{w}, nil
	case FormatTarGzip:
		return newBlockWriter(w, 1<<20, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }), nil
	case FormatTarXz:
		// As large as xz's own window: hardly anything is lost between blocks.
		return newBlockWriter(w, 8<<20, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }), nil
	case FormatTarZstd:
		return zstd.NewWriter(w)
	}
	return nil, fmt.Errorf("%q is no format of an archive", f)
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// blockWriter compresses blocks each for itself, on all CPUs: gzip and xz let
// compressed files follow each other, and mean the whole.
type blockWriter struct {
	size  int // of a block
	open  func(io.Writer) (io.WriteCloser, error)
	block []byte
	any   bool
	queue chan chan packedBlock // in order
	ended chan error
	stop  chan struct{} // closed when the other side has failed
	err   error
}

type packedBlock struct {
	data []byte
	err  error
}

func newBlockWriter(w io.Writer, size int, open func(io.Writer) (io.WriteCloser, error)) *blockWriter {
	b := &blockWriter{
		size: size, open: open, queue: make(chan chan packedBlock, runtime.GOMAXPROCS(0)),
		ended: make(chan error, 1), stop: make(chan struct{}),
	}
	go func() {
		var err error
		for c := range b.queue {
			p := <-c
			if err != nil {
				continue
			}
			if err = p.err; err == nil {
				_, err = w.Write(p.data)
			}
			if err != nil {
				b.err = err
				close(b.stop)
			}
		}
		b.ended <- err
	}()
	return b
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
		select {
		case <-b.stop:
			return n, b.err
		default:
		}
	}
	return n, nil
}

// start has the block compressed.
func (b *blockWriter) start() {
	block, c := b.block, make(chan packedBlock, 1)
	b.block, b.any = nil, true
	b.queue <- c
	go func() {
		var out bytes.Buffer
		z, err := b.open(&out)
		if err == nil {
			if _, err = z.Write(block); err == nil {
				err = z.Close()
			}
		}
		c <- packedBlock{out.Bytes(), err}
	}()
}

// Close compresses the rest and waits until all is written.
func (b *blockWriter) Close() error {
	if len(b.block) > 0 || !b.any {
		b.start()
	}
	close(b.queue)
	return <-b.ended
}
