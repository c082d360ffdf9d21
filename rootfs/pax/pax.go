// Package pax writes and reads tar archives with what archive/tar lacks: it
// writes sparse files, and reads them without their holes. Headers are those of
// archive/tar; package rootfs says which of them become part of a distro.
//
// What it writes is POSIX's pax format, with GNU's sparse format 1.0 for holes
// and SCHILY.xattr records for extended attributes. GNU tar, bsdtar,
// archive/tar and container engines read it.
//
//	b, err := pax.AppendHeader(nil, h, nil) // then h.Size bytes, then:
//	b = pax.AppendPadding(b, h.Size)
//	b = pax.AppendEnd(b)
//
//	r := pax.NewReader(archive)
//	for {
//		h, err := r.Next() // io.EOF at the end
//		for _, e := range r.Extents() { // where the bytes that Read returns belong
//			io.CopyN(io.NewOffsetWriter(f, e.Offset), r, e.Size)
//		}
//	}
//
// It is pure: it neither looks at files nor makes any. A Reader may get bytes
// from anywhere; it is fuzzed, and allocates no more than the limits below.
package pax

import "errors"

// Extent is a part of a file that has data; around it are holes.
type Extent struct{ Offset, Size int64 }

const (
	block = 512

	// Limits of what an entry may have, which are archive/tar's too.
	MaxRecords = 1 << 20 // bytes of pax records: names and extended attributes
	MaxExtents = 1 << 20 // parts of a sparse file
)

// ErrTooMuch says that an entry has more than the limits allow.
var ErrTooMuch = errors.New("more extended attributes or parts than an archive can have")

// Records of extended attributes, and of sparse files.
const (
	xattrPrefix  = "SCHILY.xattr."
	sparsePrefix = "GNU.sparse."
)
