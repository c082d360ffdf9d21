package pax

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Reader reads an archive entry by entry. It is for one goroutine.
type Reader struct {
	r       *bufio.Reader
	left    int64 // bytes of the entry that Read has not returned
	pad     int64 // behind them
	extents []Extent
	hb      [block]byte
}

// bufferSize is how much is read at once.
const bufferSize = 256 << 10

// NewReader returns a reader of the plain archive r, in any of tar's forms. It
// reads ahead.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, bufferSize)} }

// entry is what comes before an entry's own header.
type entry struct {
	records    map[string]string
	offsets    []string // of sparse format 0.0, which has records of one name
	name, link string   // of GNU tar's long names
}

// Next goes to the next entry. At the end of the archive the error is io.EOF;
// what follows the end stays unread. Errors about the archive's bytes wrap
// [tar.ErrHeader] or are io.ErrUnexpectedEOF.
//
// Comments (global pax headers) come as entries of type tar.TypeXGlobalHeader.
func (r *Reader) Next() (*tar.Header, error) {
	if err := r.skip(); err != nil {
		return nil, err
	}
	var e entry
	for {
		if err := r.nextBlock(); err != nil {
			return nil, err
		}
		kind := r.hb[fieldType]
		switch kind {
		case tar.TypeXHeader, tar.TypeGNULongName, tar.TypeGNULongLink, tar.TypeXGlobalHeader:
			body, err := r.special()
			if err != nil {
				return nil, err
			}
			switch kind {
			case tar.TypeXHeader:
				e.records, e.offsets, err = parseRecords(body)
			case tar.TypeXGlobalHeader:
				_, _, err = parseRecords(body)
				if err == nil {
					return &tar.Header{Typeflag: kind, Name: "pax_global_header"}, nil
				}
			case tar.TypeGNULongName:
				e.name = untilZero(body)
			case tar.TypeGNULongLink:
				e.link = untilZero(body)
			}
			if err != nil {
				return nil, err
			}
		default:
			return r.entry(&e)
		}
	}
}

// Extents says where in the file the bytes of the entry belong that Read
// returns. The slice is good until the next call of Next.
func (r *Reader) Extents() []Extent { return r.extents }

// Read reads the bytes of the entry, without its holes.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, cutOff(err)
}

// Take is Read without a copy: it returns some of the entry's bytes, up to most
// of them, which are good until the next call.
func (r *Reader) Take(most int64) ([]byte, error) {
	most = min(most, r.left)
	if most == 0 {
		return nil, io.EOF
	}
	if r.r.Buffered() == 0 {
		if _, err := r.r.Peek(1); err != nil {
			return nil, cutOff(err)
		}
	}
	p, _ := r.r.Peek(int(min(most, int64(r.r.Buffered()))))
	r.r.Discard(len(p))
	r.left -= int64(len(p))
	return p, nil
}

// Rest reads what follows the archive's end, to the end of the stream.
func (r *Reader) Rest() error {
	_, err := io.Copy(io.Discard, r.r)
	return err
}

// skip reads what is left of an entry.
func (r *Reader) skip() error {
	for n := r.left + r.pad; n > 0; {
		k, err := r.r.Discard(int(min(n, bufferSize)))
		if err != nil {
			return cutOff(err)
		}
		n -= int64(k)
	}
	r.left, r.pad, r.extents = 0, 0, nil
	return nil
}

// nextBlock reads a header block. Two blocks of zeros, or one and no more, are
// the end; so is no block at all, as for archive/tar.
func (r *Reader) nextBlock() error {
	n, err := io.ReadFull(r.r, r.hb[:])
	if err != nil {
		if n > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if r.hb != [block]byte{} {
		return nil
	}
	if _, err = io.ReadFull(r.r, r.hb[:]); err != nil {
		return err
	}
	if r.hb != [block]byte{} {
		return headerError("a block of zeros stands between entries")
	}
	return io.EOF
}

// special reads the body of an entry that says something of the next one.
func (r *Reader) special() ([]byte, error) {
	h, err := r.decode()
	if err != nil {
		return nil, err
	}
	if h.Size > MaxRecords {
		return nil, headerError(fmt.Sprintf("an entry's names and attributes have %d bytes", h.Size))
	}
	body := make([]byte, h.Size)
	if _, err := io.ReadFull(r.r, body); err != nil {
		return nil, cutOff(err)
	}
	r.pad = -h.Size & (block - 1)
	return body, r.skip()
}

// decode decodes the header block. Its type is taken for that of a file, or
// archive/tar would do more with it.
func (r *Reader) decode() (*tar.Header, error) {
	hb := r.hb
	sum, ok := parseOctal(hb[fieldSum.at : fieldSum.at+fieldSum.size])
	kind := hb[fieldType]
	if kind != 0 {
		hb[fieldType] = tar.TypeReg
		sum += tar.TypeReg - int64(kind)
	}
	if !ok || sum < 0 {
		return nil, headerError("a header has no sum")
	}
	copy(hb[fieldSum.at:], fmt.Appendf(nil, "%06o\x00 ", sum))
	h, err := tar.NewReader(bytes.NewReader(hb[:])).Next()
	if err != nil {
		return nil, err
	}
	// The zero byte of old archives has become a file, or a directory by its name.
	if kind != 0 && kind != tar.TypeReg {
		h.Typeflag = kind
	}
	h.Format = 0
	return h, nil
}

// entry makes the header of an entry of what was read.
func (r *Reader) entry(e *entry) (*tar.Header, error) {
	h, err := r.decode()
	if err != nil {
		return nil, err
	}
	if err := e.merge(h); err != nil {
		return nil, err
	}
	size := h.Size
	switch h.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		size = 0 // archives that say more have no data nevertheless
	}
	if h.Typeflag == tar.TypeReg && strings.HasSuffix(h.Name, "/") && r.hb[fieldType] == 0 {
		h.Typeflag = tar.TypeDir
		size = 0
	}
	r.left, r.pad = size, -size&(block-1)
	return h, r.sparse(h, e)
}

// merge puts into h what comes before it.
func (e *entry) merge(h *tar.Header) error {
	var err error
	number := func(v string) int64 {
		n, perr := strconv.ParseInt(v, 10, 64)
		if perr != nil || n < 0 {
			err = headerError(fmt.Sprintf("%.40q is no number", v))
		}
		return n
	}
	for k, v := range e.records {
		if v == "" {
			continue // it takes a global record back, of which there are none here
		}
		switch k {
		case "path":
			h.Name = v
		case "linkpath":
			h.Linkname = v
		case "uname":
			h.Uname = v
		case "gname":
			h.Gname = v
		case "uid":
			h.Uid = int(number(v))
		case "gid":
			h.Gid = int(number(v))
		case "size":
			h.Size = number(v)
		case "mtime":
			var terr error
			if h.ModTime, terr = parseTime(v); terr != nil {
				err = terr
			}
		}
	}
	h.PAXRecords = e.records
	if e.name != "" {
		h.Name = e.name
	}
	if e.link != "" {
		h.Linkname = e.link
	}
	return err
}

// sparse reads the map of a sparse file, in whichever form it comes, and gives
// h the file's own name and size.
func (r *Reader) sparse(h *tar.Header, e *entry) error {
	rec := func(key string) string { return e.records[sparsePrefix+key] }
	var m sparseMap
	var err error
	switch {
	case h.Typeflag == tar.TypeGNUSparse:
		err = r.oldMap(h, &m)
	case h.Typeflag != tar.TypeReg:
	case rec("major") == "1" && rec("minor") == "0":
		err = r.leadingMap(&m)
	case rec("map") != "":
		err = m.fields(strings.Split(rec("map"), ","))
	case len(e.offsets) > 0:
		err = m.fields(e.offsets)
	}
	if err != nil {
		return err
	}
	if name := rec("name"); name != "" && m.used {
		h.Name = name
	}
	if m.used {
		if h.Size, err = m.total(cmpOr(rec("realsize"), rec("size")), h.Size); err != nil {
			return err
		}
	} else if r.left > 0 {
		m.list = []Extent{{0, r.left}}
	}
	r.extents = m.list
	return m.check(r.left, h.Size)
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func cutOff(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func headerError(text string) error { return fmt.Errorf("%w: %s", tar.ErrHeader, text) }

func untilZero(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}
