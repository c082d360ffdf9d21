package hvwindows

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"unicode/utf16"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// A VHDX file as in MS-VHDX, version 20200708: areas of 1 MiB, then the blocks.
// https://learn.microsoft.com/openspecs/windows_protocols/ms-vhdx
const (
	vhdxMagic   = "vhdxfile"
	vhdxMiB     = 1 << 20
	vhdxHeaders = 64 << 10  // two, each in 64 KiB
	vhdxRegions = 192 << 10 // two, each of 64 KiB
	vhdxLog     = 1 * vhdxMiB
	vhdxMeta    = 2 * vhdxMiB
	vhdxBAT     = 3 * vhdxMiB
	// vhdxBlock is the unit in which the file grows, and gives back what the guest trims. WSL
	// has the same.
	vhdxBlock = 1 * vhdxMiB
	// vhdxChunk is after how many blocks an entry of the allocation table is left out: it is for
	// disks that are the difference to another.
	vhdxChunk   = 1 << 23 * 512 / vhdxBlock
	vhdxPresent = 6        // the state of a block whose content is in the file
	vhdxMax     = 64 << 40 // bytes
)

// guidBytes is a GUID as VHDX keeps it: its first three numbers are little-endian.
func guidBytes(a uint32, b, c uint16, d [8]byte) []byte {
	g := binary.LittleEndian.AppendUint32(nil, a)
	g = binary.LittleEndian.AppendUint16(g, b)
	return append(binary.LittleEndian.AppendUint16(g, c), d[:]...)
}

var (
	regionBAT   = guidBytes(0x2DC27766, 0xF623, 0x4200, [8]byte{0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08})
	regionMeta  = guidBytes(0x8B7CA206, 0x4790, 0x4B9A, [8]byte{0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E})
	itemParams  = guidBytes(0xCAA16737, 0xFA36, 0x4D43, [8]byte{0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B})
	itemSize    = guidBytes(0x2FA54224, 0xCD1B, 0x4876, [8]byte{0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8})
	itemID      = guidBytes(0xBECA12AB, 0xB2E6, 0x4523, [8]byte{0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46})
	itemLogical = guidBytes(0x8141BF1D, 0xA96F, 0x4709, [8]byte{0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F})
	itemPhys    = guidBytes(0xCDA348C7, 0x445D, 0x4471, [8]byte{0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56})
)

// batLen is the length of the allocation table of a disk in bytes.
func batLen(size int64) int64 {
	blocks := (size + vhdxBlock - 1) / vhdxBlock
	return 8 * (blocks + (blocks-1)/vhdxChunk)
}

// writeVHDX writes a disk of size bytes, a multiple of 512. content is all of it; nil stands
// for an empty disk, whose blocks come when they are written.
func writeVHDX(w io.WriterAt, size int64, content io.Reader) error {
	if size <= 0 || size%512 != 0 || size > vhdxMax {
		return fmt.Errorf("a virtual disk of %d bytes: it has to be a multiple of 512, and 64 TiB at most", size)
	}
	var ids [48]byte // of the file, of the data, and of the disk
	rand.Read(ids[:])
	for i := 0; i < len(ids); i += 16 {
		ids[i+7], ids[i+8] = ids[i+7]&0x0f|0x40, ids[i+8]&0x3f|0x80 // RFC 9562, version 4
	}
	le := binary.LittleEndian
	name := append([]byte(vhdxMagic), utf16le("lsub")...)
	batRoom := (batLen(size) + vhdxMiB - 1) &^ (vhdxMiB - 1)

	header := make([]byte, 4<<10)
	copy(header, "head")
	copy(header[16:], ids[:32])
	le.PutUint16(header[66:], 1) // version
	le.PutUint32(header[68:], vhdxMiB)
	le.PutUint64(header[72:], vhdxLog)

	regions := make([]byte, 64<<10)
	copy(regions, "regi")
	le.PutUint32(regions[8:], 2)
	for i, r := range []struct {
		id       []byte
		at, size int64
	}{{regionBAT, vhdxBAT, batRoom}, {regionMeta, vhdxMeta, vhdxMiB}} {
		entry := regions[16+32*i:]
		copy(entry, r.id)
		le.PutUint64(entry[16:], uint64(r.at))
		le.PutUint32(entry[24:], uint32(r.size))
		le.PutUint32(entry[28:], 1) // required
	}
	putChecksum(regions)

	writes := []struct {
		at int64
		b  []byte
	}{
		{0, name}, {vhdxRegions, regions}, {vhdxRegions + 64<<10, regions}, {vhdxMeta, metadata(size, ids[32:])},
	}
	for i := range 2 {
		le.PutUint64(header[8:], uint64(i+1)) // the newer one counts
		putChecksum(header)
		writes = append(writes, struct {
			at int64
			b  []byte
		}{vhdxHeaders + int64(i)*64<<10, append([]byte(nil), header...)})
	}
	for _, x := range writes {
		if _, err := w.WriteAt(x.b, x.at); err != nil {
			return err
		}
	}
	return writeBlocks(w, size, vhdxBAT+batRoom, content)
}

// writeBlocks writes the content from an offset on, and the allocation table.
func writeBlocks(w io.WriterAt, size, at int64, content io.Reader) error {
	table := make([]byte, batLen(size))
	if content == nil {
		// The file ends with the table's room.
		if _, err := w.WriteAt([]byte{0}, at-1); err != nil {
			return err
		}
		_, err := w.WriteAt(table, vhdxBAT)
		return err
	}
	block := make([]byte, vhdxBlock)
	for i := int64(0); i*vhdxBlock < size; i++ {
		n := min(size-i*vhdxBlock, vhdxBlock)
		if _, err := io.ReadFull(content, block[:n]); err != nil {
			return err
		}
		clear(block[n:])
		if _, err := w.WriteAt(block, at); err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(table[8*(i+i/vhdxChunk):], uint64(at)|vhdxPresent)
		at += vhdxBlock
	}
	_, err := w.WriteAt(table, vhdxBAT)
	return err
}

// metadata is the region that says what the disk is like.
func metadata(size int64, id []byte) []byte {
	const disk, required = 2, 4
	b := make([]byte, 128<<10)
	copy(b, "metadata")
	items := []struct {
		id, value []byte
		flags     uint32
	}{
		{itemParams, binary.LittleEndian.AppendUint64(nil, vhdxBlock), required},
		{itemSize, binary.LittleEndian.AppendUint64(nil, uint64(size)), disk | required},
		{itemID, id, disk | required},
		{itemLogical, binary.LittleEndian.AppendUint32(nil, 512), disk | required},
		{itemPhys, binary.LittleEndian.AppendUint32(nil, 4096), disk | required},
	}
	binary.LittleEndian.PutUint16(b[10:], uint16(len(items)))
	at := 64 << 10
	for i, item := range items {
		entry := b[32+32*i:]
		copy(entry, item.id)
		binary.LittleEndian.PutUint32(entry[16:], uint32(at))
		binary.LittleEndian.PutUint32(entry[20:], uint32(len(item.value)))
		binary.LittleEndian.PutUint32(entry[24:], item.flags)
		copy(b[at:], item.value)
		at += len(item.value)
	}
	return b
}

// putChecksum sets the checksum of a structure, which is in its bytes 4 to 7.
func putChecksum(b []byte) {
	clear(b[4:8])
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// MakeDisk makes an empty disk that grows as it is written.
func (d *Driver) MakeDisk(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	return writeVHDX(f, size, nil)
}

// asVHDX returns the path of a disk as a VHDX file: the disk's own if it is one, else that of
// a copy beside it, which is made once.
func asVHDX(d hypervisor.Disk) (string, error) {
	raw, err := os.Open(d.Path)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	head := make([]byte, len(vhdxMagic))
	if n, _ := raw.ReadAt(head, 0); n == len(head) && string(head) == vhdxMagic {
		return d.Path, nil
	}
	if !d.ReadOnly {
		return "", hint.New(errors.New("it is a raw image; Windows takes virtual disks in the format VHDX"),
			"convert it, as with 'qemu-img convert -O vhdx'")
	}
	fi, err := raw.Stat()
	if err != nil {
		return "", err
	}
	path := d.Path + ".vhdx"
	if made, err := os.Stat(path); err == nil && !made.ModTime().Before(fi.ModTime()) {
		return path, nil
	}
	// In sectors, as disks are.
	size := (fi.Size() + 511) &^ 511
	return path, atomicfile.Replace(path, func(f *os.File) error {
		return writeVHDX(f, size, io.MultiReader(io.NewSectionReader(raw, 0, fi.Size()), zeros{}))
	})
}

// zeros is an endless row of zeros.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
