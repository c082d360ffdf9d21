package transfer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsub/lsub/rootfs/pax"
)

// SendOptions say what is sent.
type SendOptions struct {
	// Sources are files and directories, by paths of this system. A link among them is
	// followed; one in a directory is not. Of one that ends in "/." only what is in it is sent.
	Sources []string
	// Resume asks the receiver for what it has, and leaves that out.
	Resume bool
	// Note, where set, gets a line for people about each file that is left out.
	Note func(string)
	// Total, where set, is told how many bytes there are to send, if that is known.
	Total func(int64)
}

// Send writes the sources to w. With Resume it reads from have what the receiver has. It
// returns how many files it could not read and has left out: Note has had a line about each.
// An error means that the receiver does not have everything else. ctx ends the work between
// two reads or writes of the streams, which the caller has to end.
func Send(ctx context.Context, w io.Writer, have io.Reader, o SendOptions) (skipped int, err error) {
	if o.Note == nil {
		o.Note = func(string) {}
	}
	roots, err := findSources(o.Sources)
	if err != nil {
		return 0, err
	}
	pre := preamble{Version: wireVersion, Resume: o.Resume}
	for _, r := range roots {
		pre.Names = append(pre.Names, r.name)
		pre.Dir = pre.Dir || r.info.IsDir()
		pre.Bytes += r.info.Size()
	}
	if pre.Dir {
		pre.Bytes = 0
	}
	if o.Total != nil {
		o.Total(pre.Bytes)
	}
	s := &sender{ctx: ctx, out: bufio.NewWriterSize(w, bufferSize), note: o.Note, links: map[fileID]string{}, buf: make([]byte, bufferSize)}
	if err := writeLine(s.out, pre); err != nil {
		return 0, err
	}
	if o.Resume {
		if err := s.out.Flush(); err != nil {
			return 0, err
		}
		if s.had, err = readHad(bufio.NewReader(have)); err != nil {
			return 0, err
		}
	}
	for _, r := range roots {
		if err := s.root(r); err != nil {
			return s.skipped, err
		}
	}
	if _, err := s.out.Write(pax.AppendEnd(nil)); err != nil {
		return s.skipped, err
	}
	return s.skipped, s.out.Flush()
}

// bufferSize is how many bytes are read and written at once.
const bufferSize = 256 << 10

// SendRaw sends what r has as the one file that the receiver's destination names.
func SendRaw(w io.Writer, r io.Reader) error {
	if err := writeLine(w, preamble{Version: wireVersion, Names: []string{"-"}, Raw: true}); err != nil {
		return err
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, bufferSize))
	return err
}

// source is one of the sources.
type source struct {
	path string
	name string // in the archive; "." is its content alone
	info fs.FileInfo
}

func findSources(paths []string) (all []source, err error) {
	seen := map[string]bool{}
	for _, p := range paths {
		if p == "" {
			return nil, errors.New("the path is empty")
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		name := "."
		if slashed := filepath.ToSlash(p); slashed != "." && !strings.HasSuffix(slashed, "/.") {
			abs, err := filepath.Abs(p)
			if err != nil {
				return nil, err
			}
			name = filepath.Base(abs)
		}
		switch {
		case !info.IsDir() && !info.Mode().IsRegular():
			return nil, fmt.Errorf("%s is neither a file nor a folder", p)
		case !isName(filepath.ToSlash(name)) && name != ".":
			name = "." // the root of a file system
		}
		if seen[name] {
			return nil, fmt.Errorf("two of the sources have the name %s", name)
		}
		seen[name] = true
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return nil, err
		}
		all = append(all, source{real, name, info})
	}
	return all, nil
}

// fileID tells files apart, of those with several names.
type fileID struct{ dev, ino uint64 }

type sender struct {
	ctx     context.Context
	out     *bufio.Writer
	note    func(string)
	had     map[string]had
	links   map[fileID]string // names in the archive of files that have several
	skipped int
	buf     []byte
	hb      []byte // headers, scratch
}

// root sends one of the sources.
func (s *sender) root(r source) error {
	if !r.info.IsDir() {
		f, err := openFile(r.path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		return s.file(r.path, r.name, &opened{file: f, info: info, err: err})
	}
	return s.dir(r.path, r.name, r.info)
}

func (s *sender) skip(file string, err error) error {
	if cause := s.ctx.Err(); cause != nil {
		return cause
	}
	s.skipped++
	s.note(fmt.Sprintf("%s is left out: %v", file, cause(err)))
	return nil
}

// cause is an error without the path that it repeats.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (s *sender) dir(dir, name string, info fs.FileInfo) error {
	d, err := os.Open(dir)
	if err != nil {
		return s.skip(dir, err)
	}
	defer d.Close()
	list, err := d.ReadDir(-1)
	if err != nil {
		return s.skip(dir, err)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	if name != "." {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode(info), ModTime: info.ModTime()}
		if err := s.header(h, nil); err != nil {
			return err
		}
	}
	list = slices.DeleteFunc(list, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), partPrefix) }) // of a copy that broke off
	for some := range slices.Chunk(list, filesAhead) {
		if err := s.some(d, dir, name, some); err != nil {
			return err
		}
	}
	return nil
}

// some sends some entries of a directory.
func (s *sender) some(d *os.File, dir, name string, list []fs.DirEntry) error {
	files := openAll(d, dir, list)
	defer func() {
		for _, o := range files {
			o.close()
		}
	}()
	for i, e := range list {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := s.entry(filepath.Join(dir, e.Name()), path.Join(name, e.Name()), e, &files[i]); err != nil {
			return err
		}
	}
	return nil
}

// opened is a file that is open, or was small and is read.
type opened struct {
	file *os.File // nil for one that is read
	info fs.FileInfo

	data []byte // of one that is read; with perm and mod
	perm fs.FileMode
	mod  time.Time

	err error
}

func (o *opened) close() {
	if o.file != nil {
		o.file.Close()
		o.file = nil
	}
}

const (
	filesAhead = 32       // are opened and read at a time, by several threads
	smallSent  = 64 << 10 // up to how many bytes they are read
)

// openAll opens the regular files of a part of a directory.
func openAll(d *os.File, dir string, list []fs.DirEntry) []opened {
	all := make([]opened, len(list))
	var next atomic.Int32
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(list) {
				return
			}
			if e := list[i]; e.Type() == 0 {
				all[i] = openEntry(d, filepath.Join(dir, e.Name()), e.Name())
			}
		}
	}
	var wg sync.WaitGroup
	if len(list) > 4 {
		for range min(runtime.GOMAXPROCS(0), 8) - 1 {
			wg.Go(work)
		}
	}
	work()
	wg.Wait()
	return all
}

func (s *sender) entry(file, name string, e fs.DirEntry, o *opened) error {
	defer o.close()
	switch e.Type() {
	case 0:
		return s.file(file, name, o)
	case fs.ModeDir:
		info, err := e.Info()
		if err != nil {
			return s.skip(file, err)
		}
		return s.dir(file, name, info)
	case fs.ModeSymlink:
		return s.link(file, name, e)
	case fs.ModeSocket:
		s.note(file + " is left out: a socket means nothing without the process behind it")
	default:
		s.note(file + " is left out: it is a pipe or a device")
	}
	return nil
}

func (s *sender) link(file, name string, e fs.DirEntry) error {
	target, err := os.Readlink(file)
	if err != nil {
		return s.skip(file, err)
	}
	info, err := e.Info()
	if err != nil {
		return s.skip(file, err)
	}
	return s.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: filepath.ToSlash(target), Mode: 0o777, ModTime: info.ModTime()}, nil)
}

// file sends a regular file.
func (s *sender) file(file, name string, o *opened) error {
	f, info := o.file, o.info
	switch {
	case o.err != nil:
		return s.skip(file, o.err)
	case f == nil:
		return s.small(name, o)
	}
	if !info.Mode().IsRegular() {
		return s.skip(file, errors.New("it was replaced meanwhile"))
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode(info), ModTime: info.ModTime(), Size: info.Size()}
	if id, several := identity(info); several {
		if first, ok := s.links[id]; ok {
			return s.header(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, ModTime: info.ModTime()}, nil)
		}
		s.links[id] = name
	}
	if s.has(h) {
		return nil
	}
	parts, err := extents(f, info)
	if err != nil {
		return s.skip(file, err)
	}
	if part, ok := s.had[partOf(name, h.Size, h.ModTime)]; ok && part.Size > 0 {
		parts = after(parts, h.Size, part.Size)
	}
	if err := s.header(h, parts); err != nil {
		return err
	}
	if parts == nil {
		return s.bytes(f, file, []pax.Extent{{Offset: 0, Size: h.Size}})
	}
	return s.bytes(f, file, parts)
}

// has tells whether the receiver has a file.
func (s *sender) has(h *tar.Header) bool {
	have, ok := s.had[h.Name]
	return ok && have.Size == h.Size && have.Time/1000 == h.ModTime.UnixNano()/1000
}

// small sends a file that is read.
func (s *sender) small(name string, o *opened) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(o.perm), ModTime: o.mod, Size: int64(len(o.data))}
	if s.has(h) {
		return nil
	}
	shortenTime(h)
	b, err := pax.AppendHeader(s.hb[:0], h, nil)
	if err != nil {
		return err
	}
	b = pax.AppendPadding(append(b, o.data...), h.Size)
	s.hb = b
	_, err = s.out.Write(b)
	return err
}

// after returns the parts of a file of a size that lie behind its first bytes.
func after(parts []pax.Extent, size, first int64) []pax.Extent {
	if parts == nil {
		parts = []pax.Extent{{Offset: 0, Size: size}}
	}
	left := []pax.Extent{}
	for _, p := range parts {
		if cut := min(max(first-p.Offset, 0), p.Size); cut < p.Size {
			left = append(left, pax.Extent{Offset: p.Offset + cut, Size: p.Size - cut})
		}
	}
	return left
}

// bytes sends parts of a file, and what fills the archive's last block.
func (s *sender) bytes(f *os.File, file string, parts []pax.Extent) error {
	sum := int64(0)
	for _, p := range parts {
		for at := p.Offset; at < p.Offset+p.Size; {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			n, err := f.ReadAt(s.buf[:min(p.Offset+p.Size-at, int64(len(s.buf)))], at)
			if n == 0 {
				if errors.Is(err, io.EOF) {
					return fmt.Errorf("%s got shorter while it was copied", file)
				}
				return err
			}
			if _, err := s.out.Write(s.buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		sum += p.Size
	}
	_, err := s.out.Write(pax.AppendPadding(s.hb[:0], sum))
	return err
}

func (s *sender) header(h *tar.Header, parts []pax.Extent) error {
	shortenTime(h)
	b, err := pax.AppendHeader(s.hb[:0], h, parts)
	if err != nil {
		return err
	}
	s.hb = b
	_, err = s.out.Write(b)
	return err
}

// mode returns the permissions that travel. Windows has none: files of it get the usual ones.
func mode(info fs.FileInfo) int64 {
	if runtime.GOOS == "windows" {
		if info.IsDir() {
			return 0o755
		}
		return 0o644
	}
	return int64(info.Mode().Perm())
}
