package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/ctxio"
	"github.com/lsub/lsub/images/internal/squashfs"
	"github.com/lsub/lsub/images/internal/unxz"
	"github.com/lsub/lsub/rootfs"
)

// maxWindow bounds the memory that an archive can make the decompressor take;
// zstd needs --ultra --long=29 or more to go over it, xz a dictionary of its own
// choice.
const maxWindow = 256 << 20

// formats are told apart by their first bytes, never by a file's name.
var formats = []struct {
	magic string
	open  func(*bufio.Reader) (io.ReadCloser, error) // nil: not supported
	name  string
}{
	{"\x1f\x8b", func(r *bufio.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }, "gzip"},
	{"\x28\xb5\x2f\xfd", openZstd, "zstd"},
	{"\xfd7zXZ\x00", func(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(unxz.NewReader(r, maxWindow)), nil }, "xz"},
	{"BZh", func(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }, "bzip2"},

	{"PK\x03\x04", nil, "a zip archive"},
	{"7z\xbc\xaf", nil, "a 7z archive"},
	{"QFI\xfb", nil, "a qcow2 disk image"},
	{"conectix", nil, "a VHD disk image"},
	{"vhdxfile", nil, "a VHDX disk image"},
	{"KDMV", nil, "a VMDK disk image"},
	{"!<arch>", nil, "a Debian package or library"},
	{"\x04\x22\x4d\x18", nil, "compressed with lz4"},
	{"\x5d\x00\x00", nil, "compressed with lzma"},
	{"\x89LZO", nil, "compressed with lzo"},
	{"\x7fELF", nil, "a program"},
}

func openZstd(r *bufio.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

// useTar is the advice for what is no tar archive at all.
const useTar = "give a root file system as a tar archive, plain or compressed with gzip, xz, zstd or bzip2, " +
	"such as 'docker export' writes, or as a squashfs image"

// decompress returns the plain archive in r, which may be compressed in one of
// the formats. Closing the result does not close r.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(tarBlock)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(head) == 0 {
		return nil, hint.New(errors.New("is empty"), useTar)
	}
	for _, f := range formats {
		if !bytes.HasPrefix(head, []byte(f.magic)) {
			continue
		}
		if f.open == nil {
			return nil, hint.New(fmt.Errorf("is %s, not a tar archive", f.name), useTar)
		}
		z, err := f.open(br)
		if err != nil {
			return nil, damaged(err)
		}
		return unpacker{z}, nil
	}
	return io.NopCloser(br), nil
}

// unpacker marks the errors of a decompressor, so that they are not taken for
// those of the archive inside.
type unpacker struct{ io.ReadCloser }

type unpackError struct{ error }

func (e unpackError) Unwrap() error { return e.error }

func (u unpacker) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = unpackError{err}
	}
	return n, err
}

const tarBlock = 512

// maxTail is how much may follow an archive's end: tar fills up its last
// record, which some make a mebibyte long.
const maxTail = 4 << 20

// summary is what one pass over an archive finds.
type summary struct {
	id      string // as Image.ID
	size    int64  // bytes of the uncompressed archive
	entries int
	setup   Setup
}

// CheckTar reads the plain tar archive r to its end and returns nil when a
// distro can be made of it on this host, as package rootfs says. st may carry limits. The
// error says what is wrong and, where the user can do something, has a hint.
func CheckTar(ctx context.Context, r io.Reader, st *rootfs.State) error {
	_, err := scan(ctx, r, "", st)
	return err
}

// scan is CheckTar for an architecture ("" is the host's) that also sums the
// archive up.
func scan(ctx context.Context, r io.Reader, arch string, st *rootfs.State) (*summary, error) {
	maxBytes := st.MaxBytes
	if maxBytes == 0 {
		maxBytes = rootfs.DefaultMaxBytes
	}
	// Headers count too, or an archive of nothing else would never end.
	raw := &rawReader{r: ctxio.NewReader(ctx, r), sum: sha256.New(), limit: 2*maxBytes + 64<<20}
	tr := tar.NewReader(raw)
	var found setupFinder
	var arches archFinder
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, tarError(ctx, err, raw.n)
		}
		if err := rootfs.CheckHeader(h, st); err != nil {
			return nil, advise(err)
		}
		if err := cmp.Or(found.entry(h, tr), arches.entry(h, tr)); err != nil {
			return nil, tarError(ctx, err, raw.n)
		}
	}
	if !raw.atEnd() {
		return nil, damaged(io.ErrUnexpectedEOF)
	}
	tail, err := io.Copy(io.Discard, io.LimitReader(raw, maxTail+1))
	if err != nil {
		return nil, tarError(ctx, err, raw.n)
	}
	if tail > maxTail {
		return nil, errors.New("goes on after the archive's end")
	}
	if err := st.Finish(); err != nil {
		return nil, advise(err)
	}
	if err := arches.check(arch); err != nil {
		return nil, err
	}
	return &summary{id: raw.id(), size: raw.n, entries: st.Entries, setup: found.setup()}, nil
}

// rawReader sums up what goes through it.
type rawReader struct {
	r     io.Reader
	sum   hash.Hash
	n     int64
	limit int64
	last  [2 * tarBlock]byte // the last bytes read
}

func (r *rawReader) Read(p []byte) (int, error) {
	if r.n >= r.limit {
		return 0, &rootfs.LimitError{What: "bytes", Limit: r.limit}
	}
	n, err := r.r.Read(p)
	r.sum.Write(p[:n])
	r.n += int64(n)
	if n >= len(r.last) {
		copy(r.last[:], p[n-len(r.last):n])
	} else {
		copy(r.last[:], r.last[n:])
		copy(r.last[len(r.last)-n:], p[:n])
	}
	return n, err
}

// atEnd tells, after package tar saw the end of an archive, whether that was
// its end mark, two blocks of zeros (it takes one, too), and not just the end
// of the bytes: so an archive that was cut between two entries is noticed.
func (r *rawReader) atEnd() bool {
	return r.n >= tarBlock && bytes.Equal(r.last[tarBlock:], make([]byte, tarBlock))
}

func (r *rawReader) id() string { return "sha256:" + hex.EncodeToString(r.sum.Sum(nil)) }

// tarError says in the user's words why reading an archive failed after n
// plain bytes.
func tarError(ctx context.Context, err error, n int64) error {
	var limit *rootfs.LimitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &limit), errors.As(err, new(*bombError)), errors.As(err, new(*squashDamage)), errors.Is(err, squashfs.ErrUnsupported):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, unxz.ErrMemory):
		return hint.New(errors.New("needs too much memory to decompress"), "compress it without zstd's --long or --ultra, or xz's larger dictionaries")
	case errors.Is(err, unxz.ErrFilter):
		return hint.New(fmt.Errorf("cannot be decompressed: %w", err), "decompress it with 'xz -d', and install that")
	case errors.As(err, new(unpackError)):
	case errors.Is(err, tar.ErrHeader) && n <= 2*tarBlock:
		return hint.New(errors.New("is not a tar archive"), useTar)
	case errors.Is(err, io.ErrUnexpectedEOF) && n < tarBlock:
		return hint.New(errors.New("is not a tar archive"), useTar)
	}
	return damaged(err)
}

// damaged says that an archive is cut off or otherwise broken.
func damaged(err error) error {
	const again = "copy or download it again"
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return hint.New(errors.New("is cut off"), again)
	}
	return hint.New(fmt.Errorf("is damaged: %w", err), again)
}

// advise adds a hint to an error of package rootfs.
func advise(err error) error {
	var unusable *rootfs.UnusableError
	var entry *rootfs.EntryError
	switch {
	case errors.As(err, &entry):
		return hint.New(err, "make the archive from inside the tree, with 'tar -C TREE --exclude=./dev -cf FILE .'")
	case errors.As(err, &unusable) && unusable.Saved:
		return hint.New(err, "make it with 'docker export' of a container, not with 'docker save'")
	case errors.As(err, &unusable) && unusable.Dir != "":
		return hint.New(err, "make it from inside the directory, with 'tar -C DIR -cf FILE .'")
	case errors.As(err, &unusable):
		return hint.New(err, useTar)
	}
	return err
}

// verifier compares what is read with an image's ID.
type verifier struct {
	io.ReadCloser
	sum  hash.Hash
	want string
	bad  func() error // makes the error for a mismatch
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.sum.Write(p[:n])
	if err == io.EOF && "sha256:"+hex.EncodeToString(v.sum.Sum(nil)) != v.want {
		err = v.bad()
	}
	return n, err
}

// stack is a reader over others: closing it closes them in order.
type stack struct {
	io.Reader
	closers []io.Closer
}

func (s *stack) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
