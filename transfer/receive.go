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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

// ReceiveOptions say where what arrives goes.
type ReceiveOptions struct {
	// Dest is a path of this system. If it is a directory, or ends in a slash, what arrives
	// goes into it; else it is the name of the one thing that arrives.
	Dest string
	// Names are those that the sources have, as [NameOf] says: a sender that sends others is
	// not to be trusted. nil takes what the sender says.
	Names []string
	// Note, where set, gets a line for people about each file that cannot be made here.
	Note func(string)
	// Total, where set, is told how many bytes there are to come, if that is known.
	Total func(int64)
}

// Receive makes what comes from r. If the sender asks, it writes to have what is there
// already. A directory that is there is filled up; a file that is there is replaced. It
// returns how many files could not be made here and were left out: Note has had a line about
// each. After an error, each file that has its name is whole. ctx ends the work between two
// reads of the stream, which the caller has to end.
func Receive(ctx context.Context, r io.Reader, have io.Writer, o ReceiveOptions) (skipped int, err error) {
	if o.Note == nil {
		o.Note = func(string) {}
	}
	in := bufio.NewReaderSize(r, bufferSize)
	pre, err := readPreamble(in)
	if err != nil {
		return 0, err
	}
	if err := checkNames(pre, o.Names); err != nil {
		return 0, err
	}
	if o.Total != nil {
		o.Total(pre.Bytes)
	}
	at, err := place(o.Dest, pre)
	if err != nil {
		return 0, err
	}
	root, err := os.OpenRoot(at.dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	if pre.Raw {
		return 0, receiveRaw(root, at.name, in)
	}
	if pre.Resume {
		if err := tellHad(ctx, root, at, pre, have); err != nil {
			return 0, err
		}
	}
	rc := &receiver{ctx: ctx, root: root, at: at, resume: pre.Resume, in: pax.NewReader(in), note: o.Note}
	rc.pool = newPool(rc.skip)
	err = rc.entries()
	if perr := rc.pool.end(); perr != nil {
		err = perr // the cause, where both are set
	}
	rc.leave()
	if err == nil {
		err = rc.finishDirs()
	}
	return int(rc.skipped.Load()), err
}

// target is where what arrives goes.
type target struct {
	dir  string // exists
	name string // in dir, instead of the archive's first word; "" keeps that
	one  string // the archive's first word, where name is set

	names []string // the first words that the archive may have; "." is any
}

// place finds where what a sender has goes.
func place(dest string, pre *preamble) (target, error) {
	if dest == "" {
		dest = "."
	}
	info, err := os.Stat(dest)
	slash := os.IsPathSeparator(dest[len(dest)-1])
	switch {
	case err == nil && info.IsDir() && pre.Raw:
		return target{}, fmt.Errorf("%s is a folder: give the name of a file in it", dest)
	case err == nil && info.IsDir():
		return target{dir: dest, names: pre.Names}, nil
	case err == nil && (slash || len(pre.Names) > 1 || pre.Dir):
		return target{}, fmt.Errorf("%s is no folder", dest)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return target{}, err
	case err != nil && slash && pre.Raw:
		return target{}, fmt.Errorf("there is no folder %s", dest)
	case err != nil && (slash && !pre.Dir || len(pre.Names) > 1):
		return target{}, fmt.Errorf("there is no folder %s", dest)
	}
	dest = filepath.Clean(dest)
	dir, name := filepath.Dir(dest), filepath.Base(dest)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return target{}, fmt.Errorf("there is no folder %s", dir)
	}
	return target{dir: dir, name: name, one: pre.Names[0], names: pre.Names}, nil
}

// NameOf returns the name that a source has in a copy, by the path that was asked for: "." is
// its content alone, and "" is not known here, such as that of a home folder.
func NameOf(asked string) string {
	if asked == "/" || asked == "." || strings.HasSuffix(asked, "/.") {
		return "."
	}
	switch base := path.Base(asked); base {
	case ".", "..", "~", "/":
		return ""
	default:
		return base
	}
}

// checkNames wants the sender to send what was asked for. Otherwise it could put what it likes
// beside that, such as a .bashrc.
func checkNames(pre *preamble, names []string) error {
	ok := names == nil || len(names) == len(pre.Names)
	for i := 0; ok && i < len(names); i++ {
		ok = names[i] == pre.Names[i] || names[i] == "" && pre.Names[i] != "."
	}
	if !ok {
		return fmt.Errorf("%w: it sends %q", errWire, pre.Names)
	}
	return nil
}

// split returns the name in the directory of the thing that an entry of the archive belongs to,
// and the entry's path in it, with slashes.
func (t target) split(name string) (top, rest string, err error) {
	clean, err := rootfs.Clean(name)
	if err != nil {
		return "", "", err
	}
	if t.one == "." {
		return t.name, clean, nil
	}
	top, rest, _ = strings.Cut(clean, "/")
	switch {
	case clean == ".", !slices.Contains(t.names, top) && !slices.Contains(t.names, "."), t.name != "" && top != t.one:
		return "", "", fmt.Errorf("%w: it sends %q", errWire, name)
	case t.name != "":
		top = t.name
	}
	return top, rest, nil
}

// dirPart is the name of a directory until it is whole.
func dirPart(top string) string { return PartName(top, -1, time.Time{}) }

// before returns what a directory is called while it is filled: it is new, or was so when an
// earlier copy began.
func before(root *os.Root, top string) string {
	if _, err := root.Lstat(top); errors.Is(err, fs.ErrNotExist) {
		return dirPart(top)
	}
	return top
}

type receiver struct {
	ctx    context.Context
	root   *os.Root
	at     target
	resume bool
	in     *pax.Reader
	note   func(string)
	pool   *pool

	noting  sync.Mutex
	skipped atomic.Int32

	parent *dirHandle // that path names
	path   string
	dirs   []madeDir
	news   []string // names of new directories, which are called dirPart until the end
}

// local returns where in the directory an entry of the archive goes, with slashes.
func (rc *receiver) local(name string) (string, error) {
	top, rest, err := rc.at.split(name)
	if err == nil && slices.Contains(rc.news, top) {
		top = dirPart(top)
	}
	return path.Join(top, rest), err
}

// begin makes a directory that is one of those that were asked for, and is new: what is in it
// comes under another name, and it gets its own at the end.
func (rc *receiver) begin(top string) error {
	if top == "" || before(rc.root, top) == top || slices.Contains(rc.news, top) {
		return nil
	}
	part := dirPart(top)
	if !rc.resume {
		if err := rc.root.RemoveAll(part); err != nil {
			return err
		}
	}
	rc.news = append(rc.news, top)
	return mkdirs(rc.root, part)
}

// madeDir is what a directory gets when all is in it: new entries change its time, and its
// permissions may keep us from making them.
type madeDir struct {
	name string
	mode fs.FileMode
	mod  time.Time
}

// skip says that a file is left out. It may be called from several goroutines.
func (rc *receiver) skip(name string, err error) {
	rc.skipped.Add(1)
	rc.noting.Lock()
	defer rc.noting.Unlock()
	rc.note(fmt.Sprintf("%s is left out: %v", name, cause(err)))
}

func (rc *receiver) leave() {
	if rc.parent != nil {
		rc.parent.unref()
	}
	rc.parent = nil
}

func (rc *receiver) entries() error {
	if rc.at.one == "." {
		if err := rc.begin(rc.at.name); err != nil {
			return err
		}
	}
	for {
		if err := rc.ctx.Err(); err != nil {
			return err
		}
		h, err := rc.in.Next()
		if err == io.EOF {
			return rc.in.Rest()
		}
		if err != nil {
			return err
		}
		if err := rc.entry(h); err != nil {
			return err
		}
		if err := rc.pool.err(); err != nil {
			return err
		}
	}
}

func (rc *receiver) entry(h *tar.Header) error {
	if err := fullTime(h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		top, rest, err := rc.at.split(h.Name)
		if err == nil && rest == "" {
			err = rc.begin(top)
		}
		if err != nil {
			return err
		}
	}
	name, err := rc.local(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return fmt.Errorf("%w: it sends %q", errWire, h.Name)
	}
	if h.Typeflag == tar.TypeDir {
		if err := mkdirs(rc.root, name); err != nil {
			return err
		}
		rc.dirs = append(rc.dirs, madeDir{name, fs.FileMode(h.Mode) & fs.ModePerm, h.ModTime})
		return nil
	}
	if err := rc.enter(path.Dir(name)); err != nil {
		return err
	}
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return rc.file(name, base, h)
	case tar.TypeSymlink:
		return rc.made(name, replace(rc.parent.root, base, func(tmp string) error {
			return rc.parent.root.Symlink(filepath.FromSlash(h.Linkname), tmp)
		}))
	case tar.TypeLink:
		target, err := rc.local(h.Linkname)
		if err != nil {
			return err
		}
		if err := rc.pool.barrier(); err != nil {
			return err
		}
		if err := noLinks(rc.root, path.Dir(target)); err != nil {
			return err
		}
		return rc.made(name, replace(rc.root, name, func(tmp string) error { return rc.root.Link(target, tmp) }))
	}
	return fmt.Errorf("%w: an entry of type %q", errWire, h.Typeflag)
}

// made goes on where something cannot be made here, such as links on Windows.
func (rc *receiver) made(name string, err error) error {
	if err == nil || isFatal(err) {
		return err
	}
	rc.skip(name, err)
	return nil
}

// enter makes a directory the parent.
func (rc *receiver) enter(dir string) error {
	if rc.parent != nil && rc.path == dir {
		return nil
	}
	if err := noLinks(rc.root, dir); err != nil {
		return err
	}
	root, err := rc.root.OpenRoot(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	rc.leave()
	rc.parent, rc.path = newDirHandle(root), dir
	return nil
}

// noLinks wants a directory whose path has no links: one that came before in the archive would
// lead from what was asked for to what else is beside it.
func noLinks(root *os.Root, dir string) error {
	for at := dir; at != "."; at = path.Dir(at) {
		info, err := root.Lstat(filepath.FromSlash(at))
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is a link or a file, and no folder", at)
		}
	}
	return nil
}

// smallFile is up to how many bytes a file is made by a worker at one go.
const smallFile = 128 << 10

func (rc *receiver) file(name, base string, h *tar.Header) error {
	j := &job{dir: rc.parent, name: name, base: base, part: PartName(path.Base(h.Name), h.Size, h.ModTime), mode: fs.FileMode(h.Mode) & fs.ModePerm, mod: h.ModTime, size: h.Size}
	top, _, _ := strings.Cut(name, "/")
	j.unseen = slices.ContainsFunc(rc.news, func(n string) bool { return dirPart(n) == top })
	if h.Size > smallFile || pax.Sparse(h) {
		return rc.made(name, j.long(rc.ctx, rc.in))
	}
	return rc.pool.add(j, rc.in)
}

// finishDirs gives directories their permissions and times, inner ones first, and new ones
// their names.
func (rc *receiver) finishDirs() error {
	for i := len(rc.dirs) - 1; i >= 0; i-- {
		d := rc.dirs[i]
		name := filepath.FromSlash(d.name)
		if err := rc.root.Chmod(name, d.mode); err != nil {
			return err
		}
		if err := rc.root.Chtimes(name, d.mod, d.mod); err != nil {
			return err
		}
	}
	for _, top := range rc.news {
		if err := rc.root.Rename(dirPart(top), top); err != nil {
			return err
		}
	}
	return nil
}

// mkdirs makes a directory, unless it is there. Its parent is there; the owner may enter it
// until all is in it.
func mkdirs(root *os.Root, name string) error {
	name = filepath.FromSlash(name)
	if err := noLinks(root, path.Dir(filepath.ToSlash(name))); err != nil {
		return err
	}
	err := root.Mkdir(name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is there and is no folder", name)
	}
	if info.Mode().Perm()&0o700 != 0o700 { // of a copy that is repeated
		return root.Chmod(name, info.Mode().Perm()|0o700)
	}
	return nil
}

// tellHad tells the sender what is here already.
func tellHad(ctx context.Context, root *os.Root, at target, pre *preamble, have io.Writer) error {
	w := bufio.NewWriterSize(have, bufferSize)
	for _, sent := range pre.Names {
		here := sent
		if at.name != "" {
			here = at.name
		}
		if err := tellTree(ctx, root, before(root, here), sent, w); err != nil {
			return err
		}
		if sent == "." {
			continue
		}
		// Beside a file there may be a part of it.
		list, err := fs.ReadDir(root.FS(), ".")
		if err != nil {
			return err
		}
		for _, e := range list {
			if strings.HasPrefix(e.Name(), partPrefix) && !e.IsDir() {
				if err := tellTree(ctx, root, e.Name(), e.Name(), w); err != nil {
					return err
				}
			}
		}
	}
	w.WriteByte('\n')
	return w.Flush()
}

// tellTree tells of the files at here, which the sender knows as sent.
func tellTree(ctx context.Context, root *os.Root, here, sent string, w io.Writer) error {
	return fs.WalkDir(root.FS(), here, func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && name == here:
			return nil // nothing is here yet
		case err != nil:
			return err
		case e.Type() != 0:
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		rel, err := filepath.Rel(filepath.FromSlash(here), filepath.FromSlash(name))
		if err != nil {
			return err
		}
		return writeLine(w, had{path.Join(sent, filepath.ToSlash(rel)), info.Size(), info.ModTime().UnixNano()})
	})
}
