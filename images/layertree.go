package images

import (
	"archive/tar"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/lsub/lsub/rootfs"
)

// Limits of a container image, beside those of rootfs.State.
const (
	maxLayers     = 512
	maxImageNodes = 4 << 20 // entries of all layers, and directories they imply
	maxLinkHops   = 40      // as Linux: symbolic links followed for one name
	maxPath       = 4095    // as Linux, of a name and of a link's target
	// A tree may take freeMemory bytes, and memoryRatio times what its layers take as they
	// come. Debian's takes less than half of that size.
	freeMemory  = 32 << 20
	memoryRatio = 128
)

// Names that mark what a layer removes from the layers below.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // an engine's own notes, no part of the image
	whiteoutOpaque = ".wh..wh..opq"
)

// layerTree is what the layers seen so far amount to, as a tree in memory: it
// holds names and directories' headers, not contents, and touches no file system.
// Names go through symbolic links of lower layers as in a container engine,
// but here they cannot lead out of the tree: its root is the only root.
type layerTree struct {
	root      *treeNode
	layer     int   // the one being added
	nodes     int   // ever made, also those replaced since
	limit     int   // of nodes
	memory    int64 // about what the tree takes, in bytes
	maxMemory int64
	plain     bool       // an archive of a tree, in which no name marks anything
	whiteouts []whiteout // of the current layer
}

// whiteout is an entry that removes what lower layers have.
type whiteout struct {
	h         *tar.Header // for messages
	dir, base string
}

// treeNode is one name in the tree.
type treeNode struct {
	children map[string]*treeNode // nil for what is no directory
	header   *tar.Header          // of a directory; nil where a layer only implies it
	file     *layerFile           // of all else
	layer    int                  // that gave the name last
}

// layerFile is what one or several names of a tree stand for.
type layerFile struct {
	layer, index int // the entry of the layer that has the contents
	target       string
	symlink      bool
	names        []string // filled by emission
}

func newLayerTree() *layerTree {
	return &layerTree{root: &treeNode{children: map[string]*treeNode{}}, limit: maxImageNodes, maxMemory: freeMemory}
}

// add applies the entry of number index of the current layer.
func (t *layerTree) add(h *tar.Header, index int) error {
	if rootfs.Skip(h) {
		return nil
	}
	// Engines take a name's leading slash for the image's root.
	name, err := rootfs.Clean(relative(h.Name))
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return &rootfs.EntryError{Name: h.Name, Reason: "stands for the root directory but is none"}
		}
		t.root.header = dirHeader(h)
		return nil
	}
	dir, base := path.Split(name)
	if strings.HasPrefix(base, whiteoutPrefix) && !t.plain {
		return t.noteWhiteout(h, dir, base)
	}
	parent, length, err := t.walk(h, dir, create)
	if err != nil {
		return err
	}
	length += len(base)
	switch h.Typeflag {
	case tar.TypeDir:
		return t.addDir(parent, base, length, h)
	case tar.TypeLink:
		file, err := t.linked(h)
		if err != nil {
			return err
		}
		return t.set(parent, base, length, &treeNode{file: file})
	}
	file := &layerFile{layer: t.layer, index: index, symlink: h.Typeflag == tar.TypeSymlink}
	if file.symlink {
		if h.Linkname == "" || len(h.Linkname) > maxPath {
			return &rootfs.EntryError{Name: h.Name, Reason: "is a symbolic link without a valid target"}
		}
		file.target = h.Linkname
	}
	return t.set(parent, base, length+len(file.target), &treeNode{file: file})
}

// charge counts memory that the tree takes from now on.
func (t *layerTree) charge(bytes int) error {
	if t.memory += int64(bytes); t.memory > t.maxMemory {
		return &rootfs.LimitError{What: "bytes of names and links, out of proportion to its size", Limit: t.maxMemory}
	}
	return nil
}

// relative takes the leading slashes off a name.
func relative(name string) string {
	if trimmed := strings.TrimLeft(name, "/"); trimmed != name {
		return "./" + trimmed
	}
	return name
}

func (t *layerTree) addDir(parent *treeNode, base string, length int, h *tar.Header) error {
	header := dirHeader(h)
	size := 300 // of the header
	for key, value := range header.PAXRecords {
		size += 100 + len(key) + len(value)
	}
	if n := parent.children[base]; n != nil && n.children != nil {
		n.header, n.layer = header, t.layer
		return t.charge(size)
	}
	return t.set(parent, base, length+size, &treeNode{header: header, children: map[string]*treeNode{}})
}

// set puts a node in the place of what is there. Its names and the like take so many
// bytes.
func (t *layerTree) set(parent *treeNode, base string, bytes int, n *treeNode) error {
	if t.nodes++; t.nodes > t.limit {
		return &rootfs.LimitError{What: "entries", Limit: int64(t.limit)}
	}
	if err := t.charge(200 + bytes); err != nil {
		return err
	}
	n.layer = t.layer
	parent.children[strings.Clone(base)] = n
	return nil
}

// linked returns the file that the hard link h is another name of.
func (t *layerTree) linked(h *tar.Header) (*layerFile, error) {
	refuse := func(reason string) (*layerFile, error) {
		return nil, &rootfs.EntryError{Name: h.Name, Reason: fmt.Sprintf("is a hard link to %.200q, %s", h.Linkname, reason)}
	}
	target, err := rootfs.Clean(relative(h.Linkname))
	if err != nil || target == "." {
		return refuse("out of the tree")
	}
	absent := "which no layer has"
	if t.plain {
		absent = "which the archive does not have"
	}
	if t.isHidden(target) {
		return refuse(absent)
	}
	dir, base := path.Split(target)
	parent, _, err := t.walk(h, dir, look)
	if err != nil {
		return nil, err
	}
	var n *treeNode
	if parent != nil {
		n = parent.children[base]
	}
	switch {
	case n == nil:
		return refuse(absent)
	case n.file == nil:
		return refuse("which is a directory")
	}
	return n.file, nil
}

// noteWhiteout keeps a whiteout for the layer's end.
func (t *layerTree) noteWhiteout(h *tar.Header, dir, base string) error {
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return &rootfs.EntryError{Name: h.Name, Reason: "is a whiteout of nothing"}
	}
	if strings.HasPrefix(base, whiteoutMeta) && base != whiteoutOpaque {
		return nil
	}
	t.whiteouts = append(t.whiteouts, whiteout{&tar.Header{Name: h.Name}, dir, base})
	return t.charge(200 + 2*len(h.Name))
}

// isHidden tells whether a whiteout of the current layer, before this moment, hides a name
// or a directory above it, as they are spelled.
func (t *layerTree) isHidden(name string) bool {
	return slices.ContainsFunc(t.whiteouts, func(w whiteout) bool {
		if w.base == whiteoutOpaque {
			return false // what its directory has by now may be of this layer
		}
		gone := w.dir + strings.TrimPrefix(w.base, whiteoutPrefix)
		return name == gone || strings.HasPrefix(name, gone+"/")
	})
}

// endLayer applies the whiteouts of the current layer, wherever in it they stood. They
// hide what lower layers have. The layer's own entries are known by now: a link among them
// leads no whiteout elsewhere, and a directory among them has hidden a lower link.
func (t *layerTree) endLayer() error {
	for _, w := range t.whiteouts {
		if err := t.hide(w); err != nil {
			return err
		}
	}
	t.whiteouts = nil
	return nil
}

// hide removes what lower layers have at the name that a whiteout gives.
func (t *layerTree) hide(w whiteout) error {
	parent, _, err := t.walk(w.h, w.dir, lower)
	if err != nil || parent == nil {
		return err
	}
	if w.base == whiteoutOpaque {
		for name, n := range parent.children {
			if !t.prune(n) {
				delete(parent.children, name)
			}
		}
		return nil
	}
	name := strings.TrimPrefix(w.base, whiteoutPrefix)
	if n := parent.children[name]; n != nil && !t.prune(n) {
		delete(parent.children, name)
	}
	return nil
}

// prune removes what the layers below the current one gave from n, and tells
// whether anything is left of it.
func (t *layerTree) prune(n *treeNode) bool {
	for name, child := range n.children {
		if !t.prune(child) {
			delete(n.children, name)
		}
	}
	return n.layer == t.layer || len(n.children) > 0
}

// walkMode says what walk does about a directory that is not there.
type walkMode int

const (
	create walkMode = iota // make it
	look                   // return nil
	lower                  // return nil, also for one behind a link of the current layer
)

// walk goes to the directory dir for the entry h, through symbolic links. It returns the
// length of its path too, with a slash at the end.
func (t *layerTree) walk(h *tar.Header, dir string, mode walkMode) (n *treeNode, length int, err error) {
	at := []*treeNode{t.root}
	lengths := []int{0} // of the paths of at
	rest, hops := components(dir), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			up := max(1, len(at)-1) // the root's parent is the root
			at, lengths = at[:up], lengths[:up]
			continue
		}
		length := lengths[len(lengths)-1] + len(name) + 1
		if length > maxPath {
			return nil, 0, &rootfs.EntryError{Name: h.Name, Reason: "has a name that is too long"}
		}
		parent := at[len(at)-1]
		n := parent.children[name]
		switch {
		case n != nil && n.children != nil:
		case n != nil && n.file.symlink:
			if mode == lower && n.layer == t.layer {
				return nil, 0, nil
			}
			if hops++; hops > maxLinkHops {
				return nil, 0, &rootfs.EntryError{Name: h.Name, Reason: "lies behind too many symbolic links"}
			}
			if strings.HasPrefix(n.file.target, "/") {
				at, lengths = at[:1], lengths[:1]
			}
			rest = append(components(n.file.target), rest...)
			continue
		case mode != create:
			return nil, 0, nil
		default: // a layer may leave directories out, and replace a file by one
			n = &treeNode{children: map[string]*treeNode{}}
			if err := t.set(parent, name, length, n); err != nil {
				return nil, 0, err
			}
		}
		at, lengths = append(at, n), append(lengths, length)
	}
	return at[len(at)-1], lengths[len(lengths)-1], nil
}

func components(dir string) []string {
	return slices.DeleteFunc(strings.Split(dir, "/"), func(c string) bool { return c == "" || c == "." })
}

// emission is a tree in the order in which it is written.
type emission struct {
	dirs  []*tar.Header        // parents first
	files map[int][]*layerFile // of each layer, by index
}

// emit puts the tree in order. It takes the tree apart.
func (t *layerTree) emit() *emission {
	e := &emission{files: map[int][]*layerFile{}}
	if t.root.header != nil {
		e.dirs = append(e.dirs, named(t.root.header, "./"))
	}
	e.walk(t.root, "")
	for _, files := range e.files {
		slices.SortFunc(files, func(a, b *layerFile) int { return a.index - b.index })
	}
	return e
}

func (e *emission) walk(n *treeNode, dir string) {
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child := n.children[name]
		full := dir + name
		if child.children == nil {
			f := child.file
			if f.names = append(f.names, full); len(f.names) == 1 {
				e.files[f.layer] = append(e.files[f.layer], f)
			}
			continue
		}
		h := child.header
		if h == nil {
			h = &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		}
		e.dirs = append(e.dirs, named(h, full+"/"))
		e.walk(child, full+"/")
	}
}

func named(h *tar.Header, name string) *tar.Header {
	h.Name = name
	return h
}

// dirHeader and plainHeader keep of an entry what a file system keeps.
func dirHeader(h *tar.Header) *tar.Header {
	p := plainHeader(h)
	p.Typeflag, p.Size, p.Linkname = tar.TypeDir, 0, ""
	return p
}

func plainHeader(h *tar.Header) *tar.Header {
	p := &tar.Header{
		Typeflag: h.Typeflag, Name: h.Name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		ModTime: h.ModTime, Format: tar.FormatPAX,
	}
	if p.Typeflag == tar.TypeChar || p.Typeflag == tar.TypeBlock {
		p.Devmajor, p.Devminor = h.Devmajor, h.Devminor
	}
	if p.Typeflag == tar.TypeGNUSparse || p.Typeflag == tar.TypeCont {
		p.Typeflag = tar.TypeReg
	}
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, "SCHILY.") && !strings.Contains(key, "=") {
			if p.PAXRecords == nil {
				p.PAXRecords = map[string]string{}
			}
			p.PAXRecords[key] = value
		}
	}
	return p
}
