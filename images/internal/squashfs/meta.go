package squashfs

import (
	"encoding/binary"
)

// metaBlock is an unpacked block of metadata.
type metaBlock struct {
	data []byte
	next uint64 // offset of the next block
}

// metaCache and blockCache hold some blocks that were read last; the oldest one is dropped
// first.
type metaCache struct {
	blocks map[uint64]metaBlock
	order  []uint64
}

// metaCached blocks are 2 MiB.
const metaCached = 256

type blockCache struct {
	blocks map[uint64][]byte
	order  []uint64
}

func (c *blockCache) get(key uint64) []byte { return c.blocks[key] }

func (c *blockCache) put(key uint64, data []byte, most int) {
	if c.blocks == nil {
		c.blocks = map[uint64][]byte{}
	}
	if len(c.order) >= most {
		delete(c.blocks, c.order[0])
		c.order = append(c.order[:0], c.order[1:]...)
	}
	c.blocks[key], c.order = data, append(c.order, key)
}

// metaBlock reads the metadata block at an offset.
func (i *Image) metaBlock(at uint64) (metaBlock, error) {
	if b, ok := i.meta.blocks[at]; ok {
		return b, nil
	}
	var head [2]byte
	if err := i.readAt(head[:], at); err != nil {
		return metaBlock{}, err
	}
	h := binary.LittleEndian.Uint16(head[:])
	plain, size := h&0x8000 != 0, uint64(h&0x7fff)
	if size == 0 || size > maxMeta {
		return metaBlock{}, damaged("a block of metadata takes %d bytes", size)
	}
	stored := make([]byte, size)
	if err := i.readAt(stored, at+2); err != nil {
		return metaBlock{}, err
	}
	b := metaBlock{stored, at + 2 + size}
	if !plain {
		b.data = make([]byte, maxMeta)
		n, err := i.codec.unpack(b.data, stored)
		if err != nil {
			return metaBlock{}, err
		}
		b.data = b.data[:n]
	}
	if i.meta.blocks == nil {
		i.meta.blocks = map[uint64]metaBlock{}
	}
	if len(i.meta.order) >= metaCached {
		delete(i.meta.blocks, i.meta.order[0])
		i.meta.order = append(i.meta.order[:0], i.meta.order[1:]...)
	}
	i.meta.blocks[at], i.meta.order = b, append(i.meta.order, at)
	return b, nil
}

// metaReader reads metadata from a position, across block boundaries.
type metaReader struct {
	img   *Image
	block metaBlock
	off   int
}

// metaAt returns a reader at an offset within the metadata block at an offset.
func (i *Image) metaAt(block, offset uint64) (*metaReader, error) {
	b, err := i.metaBlock(block)
	if err != nil {
		return nil, err
	}
	if offset >= uint64(len(b.data)) {
		return nil, damaged("something lies behind the end of its metadata")
	}
	return &metaReader{i, b, int(offset)}, nil
}

// metaRef is metaAt for a reference of the format's tables, relative to base.
func (i *Image) metaRef(base, ref uint64) (*metaReader, error) {
	if ref>>16 > i.super.Used { // otherwise the sum could wrap around
		return nil, damaged("something at %d lies outside of it", ref>>16)
	}
	return i.metaAt(base+ref>>16, ref&0xffff)
}

func (r *metaReader) read(p []byte) error {
	for len(p) > 0 {
		if r.off == len(r.block.data) {
			b, err := r.img.metaBlock(r.block.next)
			if err != nil {
				return err
			}
			if len(b.data) == 0 {
				return damaged("a block of metadata is empty")
			}
			r.block, r.off = b, 0
		}
		n := copy(p, r.block.data[r.off:])
		r.off += n
		p = p[n:]
	}
	return nil
}

// decode reads a struct of numbers.
func (r *metaReader) decode(v any) error {
	b := make([]byte, binary.Size(v))
	if err := r.read(b); err != nil {
		return err
	}
	_, err := binary.Decode(b, binary.LittleEndian, v)
	return err
}

func (r *metaReader) uint32() (uint32, error) {
	var b [4]byte
	err := r.read(b[:])
	return binary.LittleEndian.Uint32(b[:]), err
}

func (r *metaReader) uint64() (uint64, error) {
	var b [8]byte
	err := r.read(b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

// text reads a string of n bytes, at most maxText.
func (r *metaReader) text(n uint32, most uint32) (string, error) {
	if n > most {
		return "", damaged("a name has %d bytes", n)
	}
	b := make([]byte, n)
	err := r.read(b)
	return string(b), err
}
