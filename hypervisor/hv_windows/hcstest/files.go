package hcstest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// VHDX is a disk image as far as the stand-in has to understand it: not the difference to
// another one, and with an empty log.
type VHDX struct {
	Size int64 // of the disk, in bytes
	file io.ReaderAt
	unit int64   // of a block, in bytes
	at   []int64 // of each block in the file; 0 for zeros
}

// GUIDs of MS-VHDX in the order of their bytes in a file.
var (
	batRegion  = []byte("\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08")
	metaRegion = []byte("\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e")
	paramItem  = []byte("\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b")
	sizeItem   = []byte("\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8")
)

// OpenVHDX reads where the blocks of a disk are.
func OpenVHDX(f io.ReaderAt) (*VHDX, error) {
	le := binary.LittleEndian
	head := make([]byte, 256<<10)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:8]) != "vhdxfile" {
		return nil, errors.New("it is no VHDX file")
	}
	region := func(id []byte) int64 {
		for e := 16; e < 16+32*int(min(le.Uint32(head[192<<10+8:]), 16)); e += 32 {
			if entry := head[192<<10+e:]; bytes.Equal(entry[:16], id) {
				return int64(le.Uint64(entry[16:]))
			}
		}
		return 0
	}
	bat, meta := region(batRegion), region(metaRegion)
	b := make([]byte, 128<<10)
	if bat == 0 || meta == 0 {
		return nil, errors.New("a region is missing")
	}
	if _, err := f.ReadAt(b, meta); err != nil {
		return nil, err
	}
	item := func(id []byte) []byte {
		for e := 32; e < 32+32*int(min(le.Uint16(b[10:]), 64)); e += 32 {
			if at := le.Uint32(b[e+16:]); bytes.Equal(b[e:e+16], id) && at < uint32(len(b)-8) {
				return b[at:]
			}
		}
		return make([]byte, 8)
	}
	d := &VHDX{file: f, unit: int64(le.Uint32(item(paramItem))), Size: int64(le.Uint64(item(sizeItem)))}
	if d.unit < 1<<20 || d.unit&(d.unit-1) != 0 || d.Size <= 0 || d.Size > 64<<40 {
		return nil, fmt.Errorf("a disk of %d bytes in blocks of %d", d.Size, d.unit)
	}
	blocks := (d.Size + d.unit - 1) / d.unit
	chunk := 1 << 23 * 512 / d.unit
	table := make([]byte, 8*(blocks+(blocks-1)/chunk))
	if _, err := f.ReadAt(table, bat); err != nil {
		return nil, err
	}
	for i := range blocks {
		entry := le.Uint64(table[8*(i+i/chunk):])
		at := int64(0)
		if entry&7 == 6 {
			at = int64(entry &^ (1<<20 - 1))
		}
		d.at = append(d.at, at)
	}
	return d, nil
}

// toRaw writes the content of a virtual disk to a sparse file.
func toRaw(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	d, err := OpenVHDX(in)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	for i, at := range d.at {
		if at == 0 {
			continue
		}
		start := int64(i) * d.unit
		n := min(d.unit, d.Size-start)
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, at, n)); err != nil {
			return err
		}
	}
	return out.Truncate(d.Size)
}

// openConsole returns what the engine writes to its console's file, until its VM is gone.
func (s *System) openConsole() (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(s.dir, "console"))
	if err != nil {
		return nil, err
	}
	vm := s.VM()
	gone := make(chan struct{})
	go func() {
		vm.Wait()
		close(gone)
	}()
	return &tail{File: f, gone: gone}, nil
}

// tail reads a file that grows.
type tail struct {
	*os.File
	gone chan struct{}
}

func (t *tail) Read(b []byte) (int, error) {
	for {
		ended := false
		select {
		case <-t.gone:
			ended = true
		default:
		}
		n, err := t.File.Read(b)
		if err != io.EOF || ended {
			return n, err
		}
		select {
		case <-t.gone:
		case <-time.After(10 * time.Millisecond): // nothing tells of a file's growth
		}
	}
}

// WriteTo hides that of the file, which would not wait.
func (t *tail) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{t}) }
