package pax

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// sparseMap is the map of a sparse file as it is read.
type sparseMap struct {
	used bool // the file is sparse
	list []Extent
	size int64 // of the file, where the map itself says so
}

func (m *sparseMap) add(offset, size int64) error {
	if len(m.list) >= MaxExtents {
		return headerError("a sparse file has too many parts")
	}
	m.list = append(m.list, Extent{offset, size})
	return nil
}

// fields reads offsets and sizes in turn.
func (m *sparseMap) fields(list []string) error {
	m.used = true
	if len(list)%2 != 0 {
		return headerError("a sparse file's map is broken")
	}
	for i := 0; i < len(list); i += 2 {
		offset, err1 := strconv.ParseInt(list[i], 10, 64)
		size, err2 := strconv.ParseInt(list[i+1], 10, 64)
		if err1 != nil || err2 != nil {
			return headerError("a sparse file's map is broken")
		}
		if err := m.add(offset, size); err != nil {
			return err
		}
	}
	return nil
}

// leadingMap reads the map of format 1.0: lines of numbers in the first blocks
// of the entry's data.
func (r *Reader) leadingMap(m *sparseMap) error {
	m.used = true
	start := r.left
	line := func() (int64, error) {
		var digits []byte
		for {
			if r.left == 0 {
				return 0, headerError("a sparse file's map is cut off")
			}
			c, err := r.r.ReadByte()
			if err != nil {
				return 0, cutOff(err)
			}
			r.left--
			if c == '\n' {
				break
			}
			if digits = append(digits, c); len(digits) > 20 {
				return 0, headerError("a sparse file's map is broken")
			}
		}
		n, err := strconv.ParseInt(string(digits), 10, 64)
		if err != nil || n < 0 {
			return 0, headerError("a sparse file's map is broken")
		}
		return n, nil
	}
	n, err := line()
	for ; n > 0 && err == nil; n-- {
		var offset, size int64
		if offset, err = line(); err == nil {
			if size, err = line(); err == nil {
				err = m.add(offset, size)
			}
		}
	}
	if err != nil {
		return err
	}
	pad := -(start - r.left) & (block - 1)
	if pad > r.left {
		return headerError("a sparse file's map is cut off")
	}
	r.left -= pad
	_, err = r.r.Discard(int(pad))
	return cutOff(err)
}

// oldMap reads the map of GNU tar's own format: in the header, and in blocks
// behind it.
func (r *Reader) oldMap(h *tar.Header, m *sparseMap) error {
	m.used = true
	if !bytes.Equal(r.hb[257:265], []byte("ustar  \x00")) {
		return headerError("a sparse file's header is not GNU tar's")
	}
	size, ok := parseNumber(r.hb[483:495])
	if !ok {
		return headerError("a sparse file has no size")
	}
	m.size = size
	at, last := r.hb[386:482], r.hb[482]
	for {
		for ; len(at) >= 24 && at[0] != 0; at = at[24:] {
			offset, ok1 := parseNumber(at[:12])
			size, ok2 := parseNumber(at[12:24])
			if !ok1 || !ok2 {
				return headerError("a sparse file's map is broken")
			}
			if err := m.add(offset, size); err != nil {
				return err
			}
		}
		if last == 0 {
			return nil
		}
		if _, err := io.ReadFull(r.r, r.hb[:]); err != nil {
			return cutOff(err)
		}
		at, last = r.hb[:504], r.hb[504]
	}
}

// total is the size of the whole file. The last entry of a map may stand for
// its end.
func (m *sparseMap) total(record string, size int64) (int64, error) {
	if m.size > 0 {
		return m.size, nil
	}
	if record == "" {
		return size, nil
	}
	n, err := strconv.ParseInt(record, 10, 64)
	if err != nil || n < 0 {
		return 0, headerError("a sparse file has no size")
	}
	return n, nil
}

// check wants the parts in order, within the file, and as long together as the
// entry's data.
func (m *sparseMap) check(data, size int64) error {
	end := int64(0)
	for _, e := range m.list {
		if e.Offset < end || e.Size < 0 || e.Size > math.MaxInt64-e.Offset {
			return headerError("a sparse file's parts overlap")
		}
		end = e.Offset + e.Size
		data -= e.Size
	}
	if m.used && end > size || data != 0 {
		return headerError("a sparse file's parts do not make the file")
	}
	return nil
}

// parseRecords reads a body of pax records. Those of which one file may have
// several come apart.
func parseRecords(b []byte) (rec map[string]string, offsets []string, err error) {
	bad := headerError("a pax record is broken")
	rec = map[string]string{}
	for len(b) > 0 {
		sp := bytes.IndexByte(b[:min(len(b), 20)], ' ')
		if sp < 0 {
			return nil, nil, bad
		}
		n, err := strconv.ParseInt(string(b[:sp]), 10, 32)
		if err != nil || n < 5 || n > int64(len(b)) || b[n-1] != '\n' || int(n)-1 < sp+1 {
			return nil, nil, bad
		}
		key, value, ok := strings.Cut(string(b[sp+1:n-1]), "=")
		if !ok || key == "" {
			return nil, nil, bad
		}
		b = b[n:]
		switch key {
		case "path", "linkpath", "uname", "gname":
			if strings.IndexByte(value, 0) >= 0 {
				return nil, nil, bad
			}
		case sparsePrefix + "offset", sparsePrefix + "numbytes":
			if (len(offsets)%2 == 0) != (key == sparsePrefix+"offset") {
				return nil, nil, bad
			}
			offsets = append(offsets, value)
			continue
		}
		rec[key] = value
	}
	return rec, offsets, nil
}

// parseTime reads a time of a record: seconds with any number of decimals.
func parseTime(s string) (time.Time, error) {
	whole, part, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, headerError(fmt.Sprintf("%.40q is no time", s))
	}
	var ns int64
	if part != "" {
		if strings.Trim(part, "0123456789") != "" {
			return time.Time{}, headerError(fmt.Sprintf("%.40q is no time", s))
		}
		ns, _ = strconv.ParseInt((part + "000000000")[:9], 10, 64)
	}
	if strings.HasPrefix(whole, "-") {
		ns = -ns
	}
	return time.Unix(sec, ns), nil
}

// parseOctal reads a number in octal digits.
func parseOctal(b []byte) (int64, bool) {
	text := strings.Trim(string(b), " \x00")
	if text == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 8, 64)
	return n, err == nil && n >= 0
}

// parseNumber reads a number in octal digits, or in GNU tar's form for large
// ones.
func parseNumber(b []byte) (int64, bool) {
	if b[0]&0x80 == 0 {
		return parseOctal(b)
	}
	n := int64(b[0] & 0x3f)
	for _, c := range b[1:] {
		if n>>55 != 0 {
			return 0, false
		}
		n = n<<8 | int64(c)
	}
	return n, b[0]&0x40 == 0
}
