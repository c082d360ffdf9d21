package squashfs

import (
	"encoding/binary"

	"github.com/lsub/lsub/rootfs/pax"
)

// xattrTable has the offsets of an image's extended attributes.
type xattrTable struct {
	values uint64 // start of names and values
	list   uint64 // offsets of the entries' blocks; 0: there are none
	count  uint32
}

// Limits of one file's attributes, as in Linux.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrs     = 256
	maxXattrBytes = 128 << 10
)

// xattrPrefixes are the namespaces; the stored names omit them.
var xattrPrefixes = []string{"user.", "trusted.", "security."}

func (i *Image) readXattrHead() error {
	if i.super.XattrTable == none64 {
		return nil
	}
	head := make([]byte, 16)
	if err := i.readAt(head, i.super.XattrTable); err != nil {
		return err
	}
	i.xattrs = xattrTable{
		values: binary.LittleEndian.Uint64(head), list: i.super.XattrTable + 16, count: binary.LittleEndian.Uint32(head[8:]),
	}
	if i.xattrs.values > i.super.Used {
		return damaged("its attributes lie outside of it")
	}
	return nil
}

// readXattrs returns attribute set n as records of a tar archive.
func (i *Image) readXattrs(n uint32) (map[string]string, error) {
	if n >= i.xattrs.count {
		return nil, damaged("attributes %d are not in its table", n)
	}
	r, err := i.lookup(i.xattrs.list, uint64(n), 16)
	if err != nil {
		return nil, err
	}
	var e struct {
		Ref         uint64
		Count, Size uint32
	}
	if err := r.decode(&e); err != nil {
		return nil, err
	}
	if e.Count > maxXattrs {
		return nil, damaged("a file has %d attributes", e.Count)
	}
	if r, err = i.metaRef(i.xattrs.values, e.Ref); err != nil {
		return nil, err
	}
	records, total := map[string]string{}, 0
	for range e.Count {
		name, value, err := i.readXattr(r)
		if err != nil {
			return nil, err
		}
		if total += len(name) + len(value); total > maxXattrBytes {
			return nil, damaged("a file has more than %d bytes of attributes", maxXattrBytes)
		}
		records[pax.XattrRecord(name)] = value
	}
	return records, nil
}

func (i *Image) readXattr(r *metaReader) (name, value string, err error) {
	var k struct{ Type, Size uint16 }
	if err := r.decode(&k); err != nil {
		return "", "", err
	}
	class := int(k.Type & 0xff)
	if class >= len(xattrPrefixes) {
		return "", "", damaged("an attribute has the class %d", class)
	}
	if name, err = r.text(uint32(k.Size), maxXattrName); err != nil {
		return "", "", err
	}
	size, err := r.uint32()
	if err != nil {
		return "", "", err
	}
	if k.Type&0x100 == 0 {
		value, err = r.text(size, maxXattrValue)
		return xattrPrefixes[class] + name, value, err
	}
	ref, err := r.uint64() // the value is elsewhere, shared by several files
	if err != nil {
		return "", "", err
	}
	away, err := i.metaRef(i.xattrs.values, ref)
	if err != nil {
		return "", "", err
	}
	if size, err = away.uint32(); err != nil {
		return "", "", err
	}
	value, err = away.text(size, maxXattrValue)
	return xattrPrefixes[class] + name, value, err
}
