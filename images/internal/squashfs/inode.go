package squashfs

import (
	"archive/tar"
	"strings"
	"time"
)

// Types of inodes; the extended form of a type has a number 7 higher.
const (
	typeDir = iota + 1
	typeFile
	typeSymlink
	typeBlock
	typeChar
	typeFifo
	typeSocket
	extended = 7
)

// inode is an image's record of a file.
type inode struct {
	header tar.Header // without a name
	kind   uint16     // a basic type
	linked bool       // it has more than one name

	// of a directory: the position and size of its list
	listBlock  uint64
	listOffset uint64
	listSize   uint64

	// of a file
	data     uint64 // offset of its first block
	fragment uint32 // none32: it has none
	tail     uint32 // offset in the fragment
	sizes    *metaReader
}

type inodeHead struct {
	Type, Mode, UID, GID uint16
	ModTime, Number      uint32
}

// inode reads the inode at a reference.
func (i *Image) inode(ref uint64) (*inode, error) {
	r, err := i.metaRef(i.super.InodeTable, ref)
	if err != nil {
		return nil, err
	}
	var head inodeHead
	if err := r.decode(&head); err != nil {
		return nil, err
	}
	n := &inode{kind: head.Type, fragment: none32}
	h := &n.header
	h.Format, h.Mode, h.ModTime = tar.FormatPAX, int64(head.Mode&0o7777), time.Unix(int64(head.ModTime), 0)
	if h.Uid, err = i.id(head.UID); err != nil {
		return nil, err
	}
	if h.Gid, err = i.id(head.GID); err != nil {
		return nil, err
	}
	long := n.kind > extended
	if long {
		n.kind -= extended
	}
	links, attrs := uint32(1), uint32(none32)
	switch n.kind {
	case typeDir:
		h.Typeflag = tar.TypeDir
		attrs, err = n.readDir(r, long)
	case typeFile:
		h.Typeflag = tar.TypeReg
		links, attrs, err = n.readFile(r, long, i.super.BlockSize)
	case typeSymlink:
		h.Typeflag = tar.TypeSymlink
		links, attrs, err = n.readSymlink(r, long)
	case typeBlock, typeChar, typeFifo, typeSocket:
		links, attrs, err = n.readSpecial(r, long)
	default:
		return nil, damaged("a file has the type %d", head.Type)
	}
	if err != nil {
		return nil, err
	}
	n.linked = links > 1 && n.kind != typeDir
	if attrs != none32 {
		h.PAXRecords, err = i.readXattrs(attrs)
	}
	return n, err
}

func (n *inode) readDir(r *metaReader, long bool) (attrs uint32, err error) {
	if !long {
		var d struct {
			Block, Links uint32
			Size, Offset uint16
			Parent       uint32
		}
		err = r.decode(&d)
		n.listBlock, n.listOffset, n.listSize = uint64(d.Block), uint64(d.Offset), uint64(d.Size)
		return none32, err
	}
	var d struct {
		Links, Size, Block, Parent uint32
		Indexes, Offset            uint16
		Attrs                      uint32
	}
	err = r.decode(&d)
	n.listBlock, n.listOffset, n.listSize = uint64(d.Block), uint64(d.Offset), uint64(d.Size)
	return d.Attrs, err
}

func (n *inode) readFile(r *metaReader, long bool, block uint32) (links, attrs uint32, err error) {
	links, attrs = 1, none32
	if long {
		var f struct {
			Data, Size, Sparse           uint64
			Links, Fragment, Tail, Attrs uint32
		}
		err = r.decode(&f)
		links, attrs = f.Links, f.Attrs
		n.data, n.fragment, n.tail, n.header.Size = f.Data, f.Fragment, f.Tail, int64(f.Size)
	} else {
		var f struct{ Data, Fragment, Tail, Size uint32 }
		err = r.decode(&f)
		n.data, n.fragment, n.tail, n.header.Size = uint64(f.Data), f.Fragment, f.Tail, int64(f.Size)
	}
	if err == nil && n.header.Size < 0 {
		err = damaged("a file has more bytes than there are")
	}
	if n.fragment != none32 && n.header.Size%int64(block) == 0 {
		n.fragment = none32 // it has no data there
	}
	n.sizes = r
	return links, attrs, err
}

func (n *inode) readSymlink(r *metaReader, long bool) (links, attrs uint32, err error) {
	var l struct{ Links, Size uint32 }
	if err := r.decode(&l); err != nil {
		return 0, 0, err
	}
	if n.header.Linkname, err = r.text(l.Size, 64<<10); err != nil {
		return 0, 0, err
	}
	n.header.Mode = 0o777
	attrs = none32
	if long {
		attrs, err = r.uint32()
	}
	return l.Links, attrs, err
}

func (n *inode) readSpecial(r *metaReader, long bool) (links, attrs uint32, err error) {
	if links, err = r.uint32(); err != nil {
		return 0, 0, err
	}
	switch n.kind {
	case typeFifo:
		n.header.Typeflag = tar.TypeFifo
	case typeBlock, typeChar:
		dev, err := r.uint32()
		if err != nil {
			return 0, 0, err
		}
		n.header.Typeflag = tar.TypeChar
		if n.kind == typeBlock {
			n.header.Typeflag = tar.TypeBlock
		}
		n.header.Devmajor, n.header.Devminor = int64(dev>>8&0xfff), int64(dev&0xff|dev>>12&0xfff00)
	}
	attrs = none32
	if long {
		attrs, err = r.uint32()
	}
	return links, attrs, err
}

// dirReader reads the list of a directory, entry by entry.
type dirReader struct {
	r     *metaReader
	left  uint64 // bytes of the list
	run   struct{ Count, Block, Number uint32 }
	inRun uint32 // entries left in the run
}

type dirEntry struct {
	name string
	ref  uint64 // of its inode
}

func (i *Image) openDir(n *inode) (*dirReader, error) {
	const dots = 3 // the format adds this to the size, for "." and ".."
	if n.listSize <= dots {
		return &dirReader{}, nil
	}
	r, err := i.metaRef(i.super.DirTable, n.listBlock<<16|n.listOffset)
	return &dirReader{r: r, left: n.listSize - dots}, err
}

// next returns the next entry; ok is false after the last one.
func (d *dirReader) next() (e dirEntry, ok bool, err error) {
	if d.inRun == 0 {
		if d.left == 0 {
			return dirEntry{}, false, nil
		}
		if err := d.take(12); err != nil {
			return dirEntry{}, false, err
		}
		if err := d.r.decode(&d.run); err != nil {
			return dirEntry{}, false, err
		}
		if d.run.Count >= 256 {
			return dirEntry{}, false, damaged("a directory has %d entries in one run", d.run.Count)
		}
		d.inRun = d.run.Count + 1
	}
	d.inRun--
	var h struct {
		Offset   uint16
		Number   int16
		Type     uint16
		NameSize uint16
	}
	if err := d.take(8); err != nil {
		return dirEntry{}, false, err
	}
	if err := d.r.decode(&h); err != nil {
		return dirEntry{}, false, err
	}
	size := uint32(h.NameSize) + 1
	if err := d.take(uint64(size)); err != nil {
		return dirEntry{}, false, err
	}
	e.ref = uint64(d.run.Block)<<16 | uint64(h.Offset)
	if e.name, err = d.r.text(size, 256); err != nil {
		return dirEntry{}, false, err
	}
	if e.name == "." || e.name == ".." || strings.ContainsAny(e.name, "/\x00") {
		return dirEntry{}, false, damaged("a file is called %q", e.name)
	}
	return e, true, nil
}

func (d *dirReader) take(n uint64) error {
	if n > d.left {
		return damaged("a directory's list is cut off")
	}
	d.left -= n
	return nil
}
