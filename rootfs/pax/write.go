package pax

import (
	"archive/tar"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The fields of a header block.
var (
	fieldName   = field{0, 100}
	fieldMode   = field{100, 8}
	fieldUID    = field{108, 8}
	fieldGID    = field{116, 8}
	fieldSize   = field{124, 12}
	fieldTime   = field{136, 12}
	fieldSum    = field{148, 8}
	fieldType   = 156
	fieldLink   = field{157, 100}
	fieldMagic  = field{257, 8}
	fieldMajor  = field{329, 8}
	fieldMinor  = field{337, 8}
	fieldPrefix = field{345, 155}
	ustar       = "ustar\x0000"
	paxName     = "././@PaxHeader" // of the entry that holds records; shown by tools that know none
	zeros       [2 * block]byte
	sparseDir   = "GNUSparseFile.0"
)

type field struct{ at, size int }

// AppendHeader appends the blocks that begin the entry of h. Of h it takes the
// type, name and target, mode, owner, size, time (to the nanosecond), device
// numbers and, of the PAXRecords, extended attributes.
//
// data is nil but for a sparse file of h.Size bytes: then it has the parts that
// are no holes, in order, and the appended blocks include the map of them. What
// has to follow are those parts' bytes and, for their sum, [AppendPadding].
//
// The error says that h cannot stand in an archive; it is ErrTooMuch where that
// is for its extended attributes.
func AppendHeader(b []byte, h *tar.Header, data []Extent) ([]byte, error) {
	if err := check(h); err != nil {
		return nil, err
	}
	var rec records
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if strings.HasPrefix(k, xattrPrefix) {
			rec.add(k, h.PAXRecords[k])
		}
	}
	var sparseMap []byte
	name, size := h.Name, h.Size
	if data != nil {
		sparseMap, size = appendMap(data)
		rec.add(sparsePrefix+"major", "1")
		rec.add(sparsePrefix+"minor", "0")
		rec.add(sparsePrefix+"name", h.Name)
		rec.add(sparsePrefix+"realsize", strconv.FormatInt(h.Size, 10))
		dir, base := path.Split(h.Name)
		name = dir + sparseDir + "/" + base
	}
	var hb [block]byte
	putName(&hb, &rec, name)
	if !putString(&hb, fieldLink, h.Linkname) {
		rec.add("linkpath", h.Linkname)
	}
	putOctal(&hb, fieldMode, h.Mode)
	for _, n := range []struct {
		field
		record string
		value  int64
	}{{fieldUID, "uid", int64(h.Uid)}, {fieldGID, "gid", int64(h.Gid)}, {fieldSize, "size", size}} {
		if !putOctal(&hb, n.field, n.value) {
			rec.add(n.record, strconv.FormatInt(n.value, 10))
			putOctal(&hb, n.field, 0)
		}
	}
	if !putOctal(&hb, fieldTime, h.ModTime.Unix()) || h.ModTime.Nanosecond() != 0 {
		rec.add("mtime", formatTime(h.ModTime))
		if h.ModTime.Unix() < 0 {
			putOctal(&hb, fieldTime, 0)
		}
	}
	putOctal(&hb, fieldMajor, h.Devmajor)
	putOctal(&hb, fieldMinor, h.Devminor)
	finish(&hb, h.Typeflag)
	if len(rec) > MaxRecords {
		return nil, fmt.Errorf("archive entry %q: %w", h.Name, ErrTooMuch)
	}
	if len(rec) > 0 {
		b = appendRecords(b, rec)
	}
	b = append(b, hb[:]...)
	return append(b, sparseMap...), nil
}

// AppendPadding appends what fills up the last block of size bytes.
func AppendPadding(b []byte, size int64) []byte { return append(b, zeros[:-size&(block-1)]...) }

// AppendEnd appends the mark of an archive's end.
func AppendEnd(b []byte) []byte { return append(b, zeros[:]...) }

// XattrRecord is the name of the pax record of an extended attribute. GNU tar
// has the two characters that records have their own use for in this form.
func XattrRecord(name string) string {
	return xattrPrefix + strings.NewReplacer("%", "%25", "=", "%3D").Replace(name)
}

// Xattrs returns the extended attributes that an entry carries.
func Xattrs(h *tar.Header) map[string]string {
	var m map[string]string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrPrefix); ok {
			if m == nil {
				m = map[string]string{}
			}
			m[strings.NewReplacer("%3D", "=", "%25", "%").Replace(name)] = v
		}
	}
	return m
}

// Sparse tells whether h, of this package or of archive/tar, is of a file with
// holes: h.Size counts them.
func Sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, sparsePrefix) {
			return true
		}
	}
	return false
}

func check(h *tar.Header) error {
	switch {
	case h.Mode < 0, h.Uid < 0, h.Gid < 0, h.Size < 0, h.Devmajor < 0, h.Devminor < 0:
		return fmt.Errorf("archive entry %q has a number below 0 in its header", h.Name)
	case h.Name == "", strings.IndexByte(h.Name, 0) >= 0, strings.IndexByte(h.Linkname, 0) >= 0:
		return fmt.Errorf("archive entry %q has no valid name", h.Name)
	}
	return nil
}

// putName stores a name in the header's two fields for it where it fits there.
// The fields may hold any bytes; so they do in the record, where GNU tar and
// archive/tar take them as they are.
func putName(hb *[block]byte, rec *records, name string) {
	if putString(hb, fieldName, name) {
		return
	}
	if len(name) <= fieldPrefix.size+1+fieldName.size {
		// The first slash that leaves little enough for the name.
		from := len(name) - fieldName.size - 1
		at := from + strings.IndexByte(name[from:], '/')
		if at >= max(from, 1) && at <= fieldPrefix.size && at < len(name)-1 {
			putString(hb, fieldPrefix, name[:at])
			putString(hb, fieldName, name[at+1:])
			return
		}
	}
	rec.add("path", name)
	putString(hb, fieldName, name[:fieldName.size])
}

// putString stores s, and tells whether it fits.
func putString(hb *[block]byte, f field, s string) bool {
	if len(s) > f.size {
		return false
	}
	copy(hb[f.at:], s)
	return true
}

// putOctal stores n with leading zeros, and tells whether it fits.
func putOctal(hb *[block]byte, f field, n int64) bool {
	if n < 0 || n>>(3*(f.size-1)) != 0 {
		return false
	}
	for i := f.at + f.size - 2; i >= f.at; i-- {
		hb[i] = '0' + byte(n&7)
		n >>= 3
	}
	return true
}

// finish stores what depends on the rest.
func finish(hb *[block]byte, kind byte) {
	hb[fieldType] = kind
	copy(hb[fieldMagic.at:], ustar)
	sum := int64(8 * ' ')
	for i, c := range hb {
		if i < fieldSum.at || i >= fieldSum.at+fieldSum.size {
			sum += int64(c)
		}
	}
	putOctal(hb, field{fieldSum.at, fieldSum.size - 1}, sum)
	hb[fieldSum.at+7] = ' '
}

// records is a body of pax records: "LENGTH KEY=VALUE\n", one after the other.
type records []byte

func (r *records) add(key, value string) {
	rest := len(key) + len(value) + 3 // space, "=", newline
	n := rest + len(strconv.Itoa(rest))
	n = rest + len(strconv.Itoa(n)) // its own digits may make it one longer
	*r = strconv.AppendInt(*r, int64(n), 10)
	*r = append(append(append(append(append(*r, ' '), key...), '='), value...), '\n')
}

func appendRecords(b []byte, rec records) []byte {
	var hb [block]byte
	putString(&hb, fieldName, paxName)
	putOctal(&hb, fieldMode, 0o644)
	for _, f := range []field{fieldUID, fieldGID, fieldTime, fieldMajor, fieldMinor} {
		putOctal(&hb, f, 0)
	}
	putOctal(&hb, fieldSize, int64(len(rec)))
	finish(&hb, tar.TypeXHeader)
	b = append(append(b, hb[:]...), rec...)
	return AppendPadding(b, int64(len(rec)))
}

// appendMap returns the blocks of a sparse file's map, and the size of the
// entry with them.
func appendMap(data []Extent) (m []byte, size int64) {
	m = append(strconv.AppendInt(m, int64(len(data)), 10), '\n')
	for _, e := range data {
		m = append(strconv.AppendInt(m, e.Offset, 10), '\n')
		m = append(strconv.AppendInt(m, e.Size, 10), '\n')
		size += e.Size
	}
	m = AppendPadding(m, int64(len(m)))
	return m, size + int64(len(m))
}

// formatTime prints a time as a record has it.
func formatTime(t time.Time) string {
	sec, ns, sign := t.Unix(), int64(t.Nanosecond()), ""
	if sec < 0 && ns > 0 {
		sec, ns = sec+1, 1e9-ns
	}
	if sec <= 0 && t.Unix() < 0 {
		sec, sign = -sec, "-"
	}
	if ns == 0 {
		return sign + strconv.FormatInt(sec, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, ns), "0")
}
