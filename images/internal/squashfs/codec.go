package squashfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/lsub/lsub/images/internal/unxz"
)

// codec unpacks blocks.
type codec interface {
	// unpack returns the number of bytes written to dst. It is an error if they do not fit.
	unpack(dst, packed []byte) (int, error)
}

func newCodec(kind uint16, block int) (codec, error) {
	switch kind {
	case 1:
		return new(zlibCodec), nil
	case 4:
		return xzCodec{}, nil
	case 5:
		return lz4Codec{}, nil
	case 6:
		// Content is never larger than its block, so that bounds the memory.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(block, maxMeta))+1),
			zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
		return zstdCodec{d}, err
	}
	names := map[uint16]string{2: "lzma", 3: "lzo"}
	name, ok := names[kind]
	if !ok {
		name = fmt.Sprintf("method %d", kind)
	}
	return nil, fmt.Errorf("squashfs packed with %s: %w", name, ErrUnsupported)
}

// fill reads r to its end into dst.
func fill(dst []byte, r io.Reader) (int, error) {
	for n := 0; ; {
		var more [1]byte
		p := dst[n:]
		if len(p) == 0 {
			p = more[:]
		}
		m, err := r.Read(p)
		if n += m; n > len(dst) {
			return 0, errors.New("it has more bytes than it may")
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func broken(err error) error { return damaged("a block cannot be unpacked: %v", err) }

type zlibCodec struct{ r io.ReadCloser }

func (c *zlibCodec) unpack(dst, packed []byte) (int, error) {
	src := bytes.NewReader(packed)
	var err error
	if c.r == nil {
		c.r, err = zlib.NewReader(src)
	} else {
		err = c.r.(zlib.Resetter).Reset(src, nil)
	}
	if err != nil {
		return 0, broken(err)
	}
	n, err := fill(dst, c.r)
	if err != nil {
		return 0, broken(err)
	}
	return n, nil
}

type xzCodec struct{}

// maxDict is more than any block needs.
const maxDict = 8 << 20

func (xzCodec) unpack(dst, packed []byte) (int, error) {
	n, err := fill(dst, unxz.NewReader(bufio.NewReader(bytes.NewReader(packed)), maxDict))
	switch {
	case errors.Is(err, unxz.ErrFilter):
		return 0, fmt.Errorf("squashfs packed with a filter of xz: %w", ErrUnsupported)
	case err != nil:
		return 0, broken(err)
	}
	return n, nil
}

type zstdCodec struct{ *zstd.Decoder }

func (c zstdCodec) unpack(dst, packed []byte) (int, error) {
	got, err := c.DecodeAll(packed, dst[:0])
	if err != nil {
		return 0, broken(err)
	}
	if len(got) > len(dst) {
		return 0, broken(errors.New("it has more bytes than it may"))
	}
	return copy(dst, got), nil // got is in dst already, unless the decoder allocated
}

type lz4Codec struct{}

// unpack decodes one lz4 block without a frame, in the kernel's format:
// https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
func (lz4Codec) unpack(dst, src []byte) (int, error) {
	bad := func() (int, error) { return 0, damaged("a block cannot be unpacked: lz4 of another form") }
	n := 0
	for at := 0; at < len(src); {
		token := src[at]
		at++
		literals, ok := lz4Length(src, &at, int(token>>4))
		if !ok || literals > len(src)-at || literals > len(dst)-n {
			return bad()
		}
		n += copy(dst[n:], src[at:at+literals])
		if at += literals; at == len(src) {
			return n, nil // the last sequence has no match
		}
		if len(src)-at < 2 {
			return bad()
		}
		back := int(src[at]) | int(src[at+1])<<8
		at += 2
		match, ok := lz4Length(src, &at, int(token&15))
		match += 4
		if !ok || back == 0 || back > n || match > len(dst)-n {
			return bad()
		}
		for range match { // may overlap itself
			dst[n] = dst[n-back]
			n++
		}
	}
	return bad()
}

// lz4Length reads the rest of a length that begins in its token.
func lz4Length(src []byte, at *int, n int) (int, bool) {
	if n != 15 {
		return n, true
	}
	for *at < len(src) && n <= maxBlock {
		b := src[*at]
		*at++
		if n += int(b); b != 255 {
			return n, true
		}
	}
	return 0, false
}
