// Package squashfs converts squashfs images into tar archives. It reads version 4 of the
// format, which Linux has had since 2009, with gzip, xz, zstd and lz4:
// https://docs.kernel.org/filesystems/squashfs.html.
//
// An image is never trusted: every offset and length is checked, no directory is visited
// twice, and memory use does not depend on the image's content. The archive's reader decides
// on its size limit: WriteTar ends with its writer's error.
//
//	img, err := squashfs.Open(file, size)
//	err = img.WriteTar(ctx, w)
package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Magic is the beginning of an image.
const Magic = "hsqs"

const (
	superblockSize = 96
	maxMeta        = 8 << 10 // size of a block of metadata
	minBlock       = 4 << 10
	maxBlock       = 1 << 20
	none64         = 1<<64 - 1
	none32         = 1<<32 - 1
)

// FormatError says what is wrong with an image.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return e.Reason }

func damaged(format string, args ...any) error {
	return &FormatError{fmt.Sprintf(format, args...)}
}

// ErrUnsupported is the error of a valid image that cannot be read.
var ErrUnsupported = errors.New("not supported")

// superblock is the header of an image, little endian.
type superblock struct {
	Magic                                                             [4]byte
	Inodes, ModTime, BlockSize, Fragments                             uint32
	Compressor, BlockLog, Flags, IDs                                  uint16
	Major, Minor                                                      uint16
	Root, Used                                                        uint64
	IDTable, XattrTable, InodeTable, DirTable, FragTable, ExportTable uint64
}

// Image is a squashfs image for reading. It holds nothing open, and is for one goroutine at a
// time.
type Image struct {
	r     io.ReaderAt
	super superblock
	codec codec

	ids      []uint32 // numeric owner ids
	meta     metaCache
	fragment blockCache
	xattrs   xattrTable
	stored   []byte // a block as stored in the image
}

// Open reads the header of an image of size bytes.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	i := &Image{r: r}
	head := make([]byte, superblockSize)
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return nil, cut(err)
	}
	if _, err := binary.Decode(head, binary.LittleEndian, &i.super); err != nil {
		return nil, err
	}
	s := &i.super
	switch {
	case string(s.Magic[:]) != Magic:
		return nil, damaged("it does not start as a squashfs image")
	case s.Major != 4 || s.Minor != 0:
		return nil, fmt.Errorf("squashfs of version %d.%d: %w", s.Major, s.Minor, ErrUnsupported)
	case s.BlockSize < minBlock || s.BlockSize > maxBlock || s.BlockLog > 20 || s.BlockSize != 1<<s.BlockLog:
		return nil, damaged("its blocks have %d bytes", s.BlockSize)
	case s.Used > uint64(size):
		return nil, io.ErrUnexpectedEOF
	case s.InodeTable >= s.DirTable || s.DirTable > s.Used || s.InodeTable < superblockSize:
		return nil, damaged("its tables lie outside of it")
	}
	var err error
	if i.codec, err = newCodec(s.Compressor, int(s.BlockSize)); err != nil {
		return nil, err
	}
	i.stored = make([]byte, maxBlock)
	if err := i.readIDs(); err != nil {
		return nil, err
	}
	return i, i.readXattrHead()
}

// cut is the error for a short read.
func cut(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readAt reads bytes within the image's part of the file.
func (i *Image) readAt(p []byte, at uint64) error {
	if at > i.super.Used || uint64(len(p)) > i.super.Used-at {
		return damaged("something at %d lies outside of it", at)
	}
	if n, err := i.r.ReadAt(p, int64(at)); n < len(p) {
		return cut(err)
	}
	return nil
}

// lookup goes to entry n of a table whose entries have size bytes. At from is a list of
// offsets, each of a metadata block full of entries.
func (i *Image) lookup(from, n uint64, size int) (*metaReader, error) {
	perBlock := uint64(maxMeta / size)
	var place [8]byte
	if err := i.readAt(place[:], from+n/perBlock*8); err != nil {
		return nil, err
	}
	return i.metaAt(binary.LittleEndian.Uint64(place[:]), uint64(n%perBlock)*uint64(size))
}

func (i *Image) readIDs() error {
	for n := range uint64(i.super.IDs) { // at most 65535
		r, err := i.lookup(i.super.IDTable, n, 4)
		if err != nil {
			return err
		}
		id, err := r.uint32()
		if err != nil {
			return err
		}
		i.ids = append(i.ids, id)
	}
	return nil
}

func (i *Image) id(index uint16) (int, error) {
	if int(index) >= len(i.ids) {
		return 0, damaged("owner %d is not in its table", index)
	}
	return int(i.ids[index]), nil
}

// sizeMask and plainFlag are the parts of a block's size in a list.
const (
	sizeMask  = 1<<24 - 1
	plainFlag = 1 << 24
)

// readBlock reads a block of data into p, which it must fill exactly. size is its size as in
// the list.
func (i *Image) readBlock(p []byte, at uint64, size uint32) error {
	n := size & sizeMask
	if size&^(sizeMask|plainFlag) != 0 || n > i.super.BlockSize {
		return damaged("a block takes %d bytes", size)
	}
	if size&plainFlag != 0 {
		if int(n) != len(p) {
			return damaged("a block has %d bytes, not %d", n, len(p))
		}
		return i.readAt(p, at)
	}
	if err := i.readAt(i.stored[:n], at); err != nil {
		return err
	}
	got, err := i.codec.unpack(p, i.stored[:n])
	if err == nil && got != len(p) {
		err = damaged("a block has %d bytes, not %d", got, len(p))
	}
	return err
}

// fragmentData returns fragment block n, which several files share.
func (i *Image) fragmentData(n uint32) ([]byte, error) {
	if data := i.fragment.get(uint64(n)); data != nil {
		return data, nil
	}
	if n >= i.super.Fragments {
		return nil, damaged("fragment %d is not in its table", n)
	}
	r, err := i.lookup(i.super.FragTable, uint64(n), 16)
	if err != nil {
		return nil, err
	}
	at, err := r.uint64()
	if err != nil {
		return nil, err
	}
	size, err := r.uint32()
	if err != nil {
		return nil, err
	}
	stored := size & sizeMask
	if size&^(sizeMask|plainFlag) != 0 || stored > i.super.BlockSize {
		return nil, damaged("a block takes %d bytes", size)
	}
	if err := i.readAt(i.stored[:stored], at); err != nil {
		return nil, err
	}
	data := make([]byte, i.super.BlockSize) // it may be shorter than the others
	if size&plainFlag != 0 {
		data = data[:copy(data, i.stored[:stored])]
	} else {
		got, err := i.codec.unpack(data, i.stored[:stored])
		if err != nil {
			return nil, err
		}
		data = data[:got]
	}
	i.fragment.put(uint64(n), data, 8)
	return data, nil
}
