package transfer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"path"
	"strings"
	"time"
)

// wireVersion is of the preamble and of what follows it.
const wireVersion = 1

// preamble is the sender's first line.
type preamble struct {
	Version int      `json:"version"`
	Names   []string `json:"names"`           // of the sources: the first words of the archive's names
	Bytes   int64    `json:"bytes,omitempty"` // to come; 0 where unknown
	Dir     bool     `json:"dir,omitempty"`   // one of the sources is a directory
	Resume  bool     `json:"resume,omitempty"`
	Raw     bool     `json:"raw,omitempty"` // instead of an archive, the bytes of one file follow
}

// had is a file that the receiver has.
type had struct {
	Name string `json:"n"` // with slashes, as in the archive
	Size int64  `json:"s"`
	Time int64  `json:"t"` // ns since 1970
}

// Limits of what the other side may say.
const (
	maxLine  = 256 << 10
	maxNames = 4096
	maxHad   = 4 << 20 // files
)

var errWire = errors.New("the other side of the copy speaks nonsense")

func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// readLine reads a line of at most maxLine bytes, without its end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, errWire
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

func readPreamble(r *bufio.Reader) (*preamble, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	p := &preamble{}
	if err := json.Unmarshal(line, p); err != nil || len(p.Names) == 0 || len(p.Names) > maxNames {
		return nil, errWire
	}
	if p.Version != wireVersion {
		return nil, fmt.Errorf("%w: version %d", errWire, p.Version)
	}
	for _, n := range p.Names {
		if !isName(n) && n != "." {
			return nil, errWire
		}
	}
	return p, nil
}

// isName tells whether a name can be that of one file in a directory.
func isName(n string) bool {
	return n != "" && n != "." && n != ".." && !strings.ContainsAny(n, "/\x00")
}

// readHad reads what the receiver has, by name.
func readHad(r *bufio.Reader) (map[string]had, error) {
	all := map[string]had{}
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			return all, nil
		}
		var h had
		if err := json.Unmarshal(line, &h); err != nil || len(all) >= maxHad || h.Size < 0 {
			return nil, errWire
		}
		all[h.Name] = h
	}
}

// shortenTime puts the fraction of a second into the fields for a device's number, which files
// do not use. tar has a record for it, which is longer than most files.
func shortenTime(h *tar.Header) {
	ns := int64(h.ModTime.Nanosecond())
	h.Devmajor, h.Devminor, h.ModTime = ns>>20, ns&(1<<20-1), time.Unix(h.ModTime.Unix(), 0)
}

// fullTime undoes shortenTime.
func fullTime(h *tar.Header) error {
	ns := h.Devmajor<<20 | h.Devminor
	if h.Devmajor < 0 || h.Devminor < 0 || h.Devminor >= 1<<20 || ns >= int64(time.Second) {
		return errWire
	}
	h.ModTime = time.Unix(h.ModTime.Unix(), ns)
	return nil
}

// partPrefix begins the names of files that are not whole.
const partPrefix = ".lsub-part-"

// PartName returns the name, in the same directory, of a file that is not whole: base is its
// final name. The same version of a file gets the same name each time.
func PartName(base string, size int64, mod time.Time) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%d\x00%d", base, size, mod.UnixMicro())
	return fmt.Sprintf("%s%016x", partPrefix, h.Sum64())
}

// partOf is PartName for a name of the archive.
func partOf(name string, size int64, mod time.Time) string {
	return path.Join(path.Dir(name), PartName(path.Base(name), size, mod))
}
