package squashfs

import (
	"archive/tar"
	"context"
	"fmt"
	"io"

	"github.com/lsub/lsub/rootfs/pax"
)

// maxName is the length of Linux' longest name.
const maxName = 4096

// tarWriter is the state of one WriteTar.
type tarWriter struct {
	img   *Image
	ctx   context.Context
	w     io.Writer
	names map[uint64]string   // first names of files with several names
	dirs  map[uint64]struct{} // visited directories
	block []byte
	buf   []byte
}

// WriteTar writes the image's tree as a tar archive: each directory before its content, and
// additional names of files as hard links. Holes of files stay holes, and sockets are
// omitted. The same image gives the same bytes. Errors of w are wrapped; a *FormatError or
// io.ErrUnexpectedEOF means that the image is damaged.
func (i *Image) WriteTar(ctx context.Context, w io.Writer) error {
	t := &tarWriter{
		img: i, ctx: ctx, w: w, names: map[uint64]string{}, dirs: map[uint64]struct{}{},
		block: make([]byte, i.super.BlockSize),
	}
	root, err := i.inode(i.super.Root)
	if err != nil {
		return err
	}
	if root.kind != typeDir {
		return damaged("its root is no directory")
	}
	if err := t.directory(i.super.Root, root, "./"); err != nil {
		return err
	}
	_, err = w.Write(pax.AppendEnd(nil))
	return err
}

// directory writes the directory n and its content. name ends in a slash.
func (t *tarWriter) directory(ref uint64, n *inode, name string) error {
	if _, twice := t.dirs[ref]; twice {
		return damaged("directory %.200q is in two places", name)
	}
	t.dirs[ref] = struct{}{}
	if len(name) > maxName {
		return damaged("directory %.200q… lies too deep", name)
	}
	if err := t.header(n, name, nil); err != nil {
		return err
	}
	d, err := t.img.openDir(n)
	if err != nil {
		return err
	}
	for {
		e, ok, err := d.next()
		if err != nil || !ok {
			return err
		}
		if err := t.ctx.Err(); err != nil {
			return context.Cause(t.ctx)
		}
		child, err := t.img.inode(e.ref)
		if err != nil {
			return err
		}
		if child.kind == typeDir {
			err = t.directory(e.ref, child, name+e.name+"/")
		} else {
			err = t.file(e.ref, child, name+e.name)
		}
		if err != nil {
			return err
		}
	}
}

// file writes an entry that is not a directory.
func (t *tarWriter) file(ref uint64, n *inode, name string) error {
	if n.kind == typeSocket {
		return nil
	}
	if n.linked {
		if first, ok := t.names[ref]; ok {
			link := &inode{header: n.header}
			link.header.Typeflag, link.header.Linkname, link.header.Size = tar.TypeLink, first, 0
			link.header.Devmajor, link.header.Devminor, link.header.PAXRecords = 0, 0, nil
			return t.header(link, name, nil)
		}
		t.names[ref] = name
	}
	if n.kind != typeFile {
		return t.header(n, name, nil)
	}
	data, err := t.img.extents(n)
	if err == nil {
		err = t.header(n, name, data)
	}
	if err == nil {
		err = t.content(n, data != nil)
	}
	if err != nil {
		return fmt.Errorf("%.200q: %w", name, err)
	}
	return nil
}

// header writes the header of an entry; data are the parts of a file with holes.
func (t *tarWriter) header(n *inode, name string, data []pax.Extent) error {
	n.header.Name = name
	b, err := pax.AppendHeader(t.buf[:0], &n.header, data)
	if err != nil {
		return damaged("%v", err)
	}
	t.buf = b[:0]
	_, err = t.w.Write(b)
	return err
}

// maxExtents bounds the memory for a file with holes. If there are more parts, zeros replace
// the holes.
const maxExtents = 1 << 16

// extents returns the parts of a file between holes, or nil if it has no holes or too many
// parts. It does not advance n.sizes.
func (i *Image) extents(n *inode) ([]pax.Extent, error) {
	sizes, block, holes := *n.sizes, int64(i.super.BlockSize), false
	data := []pax.Extent{}
	add := func(at, size int64) {
		if last := len(data) - 1; last >= 0 && data[last].Offset+data[last].Size == at {
			data[last].Size += size
		} else {
			data = append(data, pax.Extent{Offset: at, Size: size})
		}
	}
	at, left := int64(0), n.header.Size
	for left > 0 && (left >= block || n.fragment == none32) {
		size, err := sizes.uint32()
		if err != nil {
			return nil, err
		}
		part := min(left, block)
		if size == 0 {
			holes = true
		} else if add(at, part); len(data) > maxExtents {
			return nil, nil
		}
		at, left = at+part, left-part
	}
	if !holes {
		return nil, nil
	}
	if left > 0 {
		add(at, left)
	}
	return data, nil
}

// content writes the bytes of a file: its blocks, then its fragment. With sparse, it omits
// the holes, which are in the header.
func (t *tarWriter) content(n *inode, sparse bool) error {
	at, left, block, written := n.data, n.header.Size, int64(t.img.super.BlockSize), int64(0)
	write := func(p []byte) error {
		written += int64(len(p))
		_, err := t.w.Write(p)
		return err
	}
	for left > 0 && (left >= block || n.fragment == none32) {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		size, err := n.sizes.uint32()
		if err != nil {
			return err
		}
		data := t.block[:min(left, block)]
		left -= int64(len(data))
		if size == 0 {
			if sparse {
				continue
			}
			clear(data)
		} else if err := t.img.readBlock(data, at, size); err != nil {
			return err
		}
		at += uint64(size & sizeMask)
		if err := write(data); err != nil {
			return err
		}
	}
	if left > 0 {
		data, err := t.img.fragmentData(n.fragment)
		if err != nil {
			return err
		}
		if int64(n.tail) > int64(len(data)) || left > int64(len(data))-int64(n.tail) {
			return damaged("its end lies outside of its fragment")
		}
		if err := write(data[n.tail : int64(n.tail)+left]); err != nil {
			return err
		}
	}
	_, err := t.w.Write(pax.AppendPadding(t.buf[:0], written))
	return err
}
