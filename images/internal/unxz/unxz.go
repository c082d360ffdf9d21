// Package unxz reads xz files in bounded memory. It parses the container format
// (https://tukaani.org/xz/xz-file-format.txt), and uses package lzma for the compressed data
// in it. On its own, that package allocates the dictionary size that a file declares, which
// may be 4 GiB.
package unxz

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// ErrMemory says that a file needs more memory than allowed.
var ErrMemory = errors.New("its dictionary is larger than allowed")

// ErrFilter says that a file was made with a filter for machine code.
var ErrFilter = errors.New("it was made with a filter other than LZMA2")

const (
	headerMagic = "\xfd7zXZ\x00"
	footerMagic = "YZ"
	lzma2Filter = 0x21
)

// Reader decompresses an xz file.
type Reader struct {
	in      *counter
	maxDict int64
	check   byte        // kind of check, of the current stream
	records hash.Hash   // of the sizes of the stream's blocks, which its index repeats
	blocks  uint64      // their number
	block   *blockState // current block; nil between blocks
	started bool
	err     error
}

type blockState struct {
	data               io.Reader
	sum                hash.Hash // nil if there is none, or an unknown one
	checkSize          int
	headerSize         int64
	from               int64  // offset of the data
	unpacked           uint64 // so far
	wantIn, wantOut    uint64
	saysIn, saysOutput bool
}

// NewReader reads an xz file with dictionaries of at most maxDict bytes. It reads to the end
// of r, since files may be concatenated.
func NewReader(r *bufio.Reader, maxDict int64) *Reader {
	return &Reader{in: &counter{r: r}, maxDict: maxDict}
}

func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil {
		if r.block == nil {
			r.err = noEOF(r.next(), r)
			continue
		}
		n, err := r.block.data.Read(p)
		r.block.unpacked += uint64(n)
		if r.block.sum != nil {
			r.block.sum.Write(p[:n])
		}
		switch {
		case err == io.EOF:
			r.err = unexpected(r.endBlock())
		case err != nil:
			r.err = unexpected(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// errEnd is the end of the file at an allowed place.
var errEnd = errors.New("end")

func noEOF(err error, r *Reader) error {
	if err == errEnd {
		return io.EOF
	}
	return unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next goes to the next block, also from one stream to the next.
func (r *Reader) next() error {
	if !r.started {
		return r.startStream()
	}
	size, err := r.in.ReadByte()
	if err != nil {
		return err
	}
	if size != 0 {
		return r.startBlock(size)
	}
	if err := r.endStream(); err != nil {
		return err
	}
	return r.padding()
}

func (r *Reader) startStream() error {
	var h [12]byte
	if _, err := io.ReadFull(r.in, h[:]); err != nil {
		return err
	}
	if string(h[:6]) != headerMagic {
		return errors.New("it does not start as an xz file")
	}
	if crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) || h[6] != 0 || h[7]&0xf0 != 0 {
		return errors.New("its header is damaged")
	}
	r.started, r.check, r.records, r.blocks = true, h[7], sha256.New(), 0
	return nil
}

// startBlock reads a block's header, whose first byte is size.
func (r *Reader) startBlock(size byte) error {
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if _, err := io.ReadFull(r.in, h[1:]); err != nil {
		return err
	}
	end := len(h) - 4
	if crc32.ChecksumIEEE(h[:end]) != binary.LittleEndian.Uint32(h[end:]) {
		return errors.New("a block's header is damaged")
	}
	b := &blockState{headerSize: int64(len(h)), saysIn: h[1]&0x40 != 0, saysOutput: h[1]&0x80 != 0}
	if h[1]&0x3f != 0 { // more than one filter
		return ErrFilter
	}
	f := bytes.NewReader(h[2:end])
	var err error
	if b.saysIn {
		if b.wantIn, err = readNumber(f); err != nil {
			return err
		}
	}
	if b.saysOutput {
		if b.wantOut, err = readNumber(f); err != nil {
			return err
		}
	}
	dict, err := dictionary(f)
	if err != nil {
		return err
	}
	if dict > r.maxDict {
		return ErrMemory
	}
	b.from = r.in.n
	if b.data, err = (lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}).NewReader2(r.in); err != nil {
		return err
	}
	b.sum, b.checkSize = newCheck(r.check)
	r.block = b
	return nil
}

// dictionary parses the only filter of a block and returns its dictionary size.
func dictionary(f *bytes.Reader) (int64, error) {
	id, err := readNumber(f)
	if err != nil {
		return 0, err
	}
	if id != lzma2Filter {
		return 0, ErrFilter
	}
	size, err := readNumber(f)
	if err != nil {
		return 0, err
	}
	code, err := f.ReadByte()
	if err != nil || size != 1 || code > 40 {
		return 0, errors.New("a block's filter is damaged")
	}
	for rest, err := f.ReadByte(); err == nil; rest, err = f.ReadByte() {
		if rest != 0 {
			return 0, errors.New("a block's header is damaged")
		}
	}
	return lzma.DecodeDictCap(code)
}

func newCheck(kind byte) (sum hash.Hash, size int) {
	switch kind {
	case 1:
		return crc32.NewIEEE(), 4
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA)), 8
	case 10:
		return sha256.New(), 32
	}
	return nil, []int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[kind]
}

// endBlock reads the padding and check after a block's data.
func (r *Reader) endBlock() error {
	b := r.block
	r.block = nil
	packed := r.in.n - b.from
	if b.saysIn && b.wantIn != uint64(packed) || b.saysOutput && b.wantOut != b.unpacked {
		return errors.New("a block has another size than it says")
	}
	if err := r.zeros(-(b.headerSize + packed) & 3); err != nil {
		return err
	}
	check := make([]byte, b.checkSize)
	if _, err := io.ReadFull(r.in, check); err != nil {
		return err
	}
	if b.sum != nil {
		got := b.sum.Sum(nil)
		if len(got) < sha256.Size { // numbers are little endian here
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		if !bytes.Equal(got, check) {
			return errors.New("a block has another sum than it says")
		}
	}
	r.blocks++
	r.addRecord(uint64(b.headerSize)+uint64(packed)+uint64(b.checkSize), b.unpacked, r.records)
	return nil
}

func (r *Reader) addRecord(packed, unpacked uint64, h hash.Hash) {
	var rec [16]byte
	binary.LittleEndian.PutUint64(rec[:], packed)
	binary.LittleEndian.PutUint64(rec[8:], unpacked)
	h.Write(rec[:])
}

// endStream reads the rest of the index, after its first byte, and the footer.
func (r *Reader) endStream() error {
	from := r.in.n - 1
	r.in.sum = crc32.NewIEEE()
	r.in.sum.Write([]byte{0})
	n, err := readNumber(r.in)
	if err != nil {
		return err
	}
	if n != r.blocks {
		return errors.New("its index is of another number of blocks")
	}
	records := sha256.New()
	for range n {
		packed, err := readNumber(r.in)
		if err != nil {
			return err
		}
		unpacked, err := readNumber(r.in)
		if err != nil {
			return err
		}
		r.addRecord(packed, unpacked, records)
	}
	if err := r.zeros(-(r.in.n - from) & 3); err != nil {
		return err
	}
	sum, size := r.in.sum.Sum32(), r.in.n-from+4
	r.in.sum = nil
	var tail [4 + 12]byte
	if _, err := io.ReadFull(r.in, tail[:]); err != nil {
		return err
	}
	foot := tail[4:]
	switch {
	case sum != binary.LittleEndian.Uint32(tail[:]), !bytes.Equal(records.Sum(nil), r.records.Sum(nil)):
		return errors.New("its index does not fit its blocks")
	case string(foot[10:]) != footerMagic, crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot),
		int64(binary.LittleEndian.Uint32(foot[4:])+1)*4 != size, foot[8] != 0 || foot[9] != r.check:
		return errors.New("its footer is damaged")
	}
	r.started = false
	return nil
}

// padding reads the zeros between two streams, or the end of the file.
func (r *Reader) padding() error {
	for {
		head, err := r.in.r.Peek(4)
		switch {
		case len(head) == 0 && err == io.EOF:
			return errEnd
		case len(head) < 4:
			return err
		case !bytes.Equal(head, make([]byte, 4)):
			return nil
		}
		if _, err := r.in.r.Discard(4); err != nil {
			return err
		}
	}
}

func (r *Reader) zeros(n int64) error {
	for range n {
		if b, err := r.in.ReadByte(); err != nil {
			return err
		} else if b != 0 {
			return errors.New("its padding is damaged")
		}
	}
	return nil
}

// readNumber reads a number of at most 63 bits, 7 in each byte.
func readNumber(r io.ByteReader) (uint64, error) {
	var n uint64
	for i := range 9 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if n |= uint64(b&0x7f) << (7 * i); b&0x80 == 0 {
			if b == 0 && i > 0 {
				break
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("a number in it is too long")
}

// counter counts the bytes read, and checksums them if asked to.
type counter struct {
	r   *bufio.Reader
	n   int64
	sum hash.Hash32
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.sum != nil {
		c.sum.Write(p[:n])
	}
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
		if c.sum != nil {
			c.sum.Write([]byte{b})
		}
	}
	return b, err
}
