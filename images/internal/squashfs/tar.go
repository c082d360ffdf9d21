package squashfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
)

// maxName is the length of the longest name that Linux takes.
const maxName = 4096

// tarWriter is one WriteTar's work.
type tarWriter struct {
	img   *Image
	ctx   context.Context
	w     *tar.Writer
	names map[uint64]string   // first names of the files that have several
	dirs  map[uint64]struct{} // that were gone through
	block []byte
	zeros []byte
}

// WriteTar writes the image's tree as a tar archive, each folder before what is
// in it, and files' further names as hard links. Holes of files become zeros,
// and sockets are left out. The same image gives the same bytes. Errors of w
// come back wrapped; a *FormatError or io.ErrUnexpectedEOF says that the image
// is damaged.
func (i *Image) WriteTar(ctx context.Context, w io.Writer) error {
	t := &tarWriter{
		img: i, ctx: ctx, w: tar.NewWriter(w), names: map[uint64]string{}, dirs: map[uint64]struct{}{},
		block: make([]byte, i.super.BlockSize), zeros: make([]byte, i.super.BlockSize),
	}
	root, err := i.inode(i.super.Root)
	if err != nil {
		return err
	}
	if root.kind != typeDir {
		return damaged("its root is no folder")
	}
	if err := t.folder(i.super.Root, root, "./"); err != nil {
		return err
	}
	return t.w.Close()
}

// folder writes the folder n and what is in it. name ends in a slash.
func (t *tarWriter) folder(ref uint64, n *inode, name string) error {
	if _, twice := t.dirs[ref]; twice {
		return damaged("folder %.200q is in two places", name)
	}
	t.dirs[ref] = struct{}{}
	if len(name) > maxName {
		return damaged("folder %.200q… lies too deep", name)
	}
	if err := t.header(n, name); err != nil {
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
			err = t.folder(e.ref, child, name+e.name+"/")
		} else {
			err = t.file(e.ref, child, name+e.name)
		}
		if err != nil {
			return err
		}
	}
}

// file writes what is no folder.
func (t *tarWriter) file(ref uint64, n *inode, name string) error {
	if n.kind == typeSocket {
		return nil
	}
	if n.linked {
		if first, ok := t.names[ref]; ok {
			link := &inode{header: n.header}
			link.header.Typeflag, link.header.Linkname, link.header.Size = tar.TypeLink, first, 0
			link.header.Devmajor, link.header.Devminor, link.header.PAXRecords = 0, 0, nil
			return t.header(link, name)
		}
		t.names[ref] = name
	}
	if err := t.header(n, name); err != nil || n.kind != typeFile {
		return err
	}
	if err := t.content(n); err != nil {
		return fmt.Errorf("%.200q: %w", name, err)
	}
	return nil
}

func (t *tarWriter) header(n *inode, name string) error {
	n.header.Name = name
	err := t.w.WriteHeader(&n.header)
	if errors.Is(err, tar.ErrHeader) {
		return damaged("%.200q cannot be put into an archive: %v", name, err)
	}
	return err
}

// content writes the bytes of a file, block by block and then its fragment.
func (t *tarWriter) content(n *inode) error {
	at, left, block := n.data, n.header.Size, int64(t.img.super.BlockSize)
	for left > 0 && (left >= block || n.fragment == none32) {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		size, err := n.sizes.uint32()
		if err != nil {
			return err
		}
		data := t.zeros[:min(left, block)]
		if size != 0 {
			data = t.block[:len(data)]
			if err := t.img.readBlock(data, at, size); err != nil {
				return err
			}
		}
		if _, err := t.w.Write(data); err != nil {
			return err
		}
		at += uint64(size & sizeMask)
		left -= int64(len(data))
	}
	if left == 0 {
		return nil
	}
	data, err := t.img.fragmentData(n.fragment)
	if err != nil {
		return err
	}
	if int64(n.tail) > int64(len(data)) || left > int64(len(data))-int64(n.tail) {
		return damaged("its end lies outside of its fragment")
	}
	_, err = t.w.Write(data[n.tail : int64(n.tail)+left])
	return err
}
