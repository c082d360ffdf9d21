// Package layertest makes random stacks of container image layers for tests, with the tree
// that each of them stands for.
package layertest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// Stack is the layers of an image, lowest first, and the tree that they stand for.
type Stack struct {
	Layers [][]byte // plain tar archives
	Tree   Model
	Opaque bool   // a layer has an opaque directory
	Text   string // the names in the layers, for messages
}

// NewStack returns the stack of a seed.
func NewStack(seed uint64) (*Stack, error) {
	r := rand.New(rand.NewPCG(seed, 10))
	s := &Stack{Tree: Model{}}
	for range 2 + r.IntN(3) {
		before := maps.Clone(s.Tree)
		fresh := s.Tree.change(r)
		entries, opaque := before.layer(s.Tree, fresh, r)
		s.Opaque = s.Opaque || opaque
		for _, h := range entries {
			s.Text += h.Name + ">" + h.Linkname + " "
		}
		s.Text += "| "
		archive, err := write(entries)
		if err != nil {
			return nil, err
		}
		s.Layers = append(s.Layers, archive)
	}
	return s, nil
}

// Model is a small tree by path: "" is a directory, ">TARGET" a symbolic link, all else a
// file's content.
type Model map[string]string

// remove removes a name and all below it.
func (m Model) remove(name string) {
	maps.DeleteFunc(m, func(p, _ string) bool { return p == name || strings.HasPrefix(p, name+"/") })
}

func (m Model) isDir(name string) bool {
	v, ok := m[name]
	return name == "." || ok && v == ""
}

// change makes a few random changes, and returns which directories are new: they hide what
// was there before.
func (m Model) change(r *rand.Rand) (fresh map[string]bool) {
	fresh = map[string]bool{}
	for range 1 + r.IntN(6) {
		name := string(rune('a' + r.IntN(3)))
		for r.IntN(2) == 0 && strings.Count(name, "/") < 2 {
			name += "/" + string(rune('a'+r.IntN(3)))
		}
		if !m.isDir(path.Dir(name)) {
			continue
		}
		kind := r.IntN(4)
		if kind == 0 && m.isDir(name) {
			continue
		}
		m.remove(name)
		maps.DeleteFunc(fresh, func(p string, _ bool) bool { return p == name || strings.HasPrefix(p, name+"/") })
		switch kind {
		case 0:
			m[name], fresh[name] = "", true
		case 1:
			m[name] = fmt.Sprint("content ", r.IntN(100))
		case 2:
			m[name] = ">" + []string{"a", "b", "./a", "/c", "/a/b", "nowhere", "."}[r.IntN(7)]
		}
	}
	return fresh
}

// layer is the difference of two trees as a container engine writes it: each directory
// above a change is there. opaque tells whether it has opaque directories.
func (before Model) layer(after Model, fresh map[string]bool, r *rand.Rand) (entries []tar.Header, opaque bool) {
	need := map[string]bool{}
	above := func(name string) {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			need[d] = true
		}
	}
	var whiteouts []tar.Header
	for name, v := range after {
		if old, ok := before[name]; !ok || old != v || fresh[name] {
			need[name] = true
			above(name)
		}
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			need[name] = need[name] || fresh[d]
		}
		if _, ok := before[name]; ok && fresh[name] {
			whiteouts, opaque = append(whiteouts, tar.Header{Name: name + "/.wh..wh..opq"}), true
		}
	}
	for name := range before {
		_, still := after[name]
		if !still && after.isDir(path.Dir(name)) && !fresh[path.Dir(name)] {
			whiteouts = append(whiteouts, tar.Header{Name: path.Join(path.Dir(name), ".wh."+path.Base(name))})
			above(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(need)) {
		switch v := after[name]; {
		case !need[name]:
		case v == "":
			entries = append(entries, tar.Header{Name: name + "/", Typeflag: tar.TypeDir})
		case v[0] == '>':
			entries = append(entries, tar.Header{Name: name, Linkname: v[1:], Typeflag: tar.TypeSymlink})
		default:
			entries = append(entries, tar.Header{Name: name, Uname: v})
		}
	}
	for _, w := range whiteouts { // wherever in the layer they stand
		entries = slices.Insert(entries, r.IntN(len(entries)+1), w)
	}
	return entries, opaque
}

// write writes a layer; the content of a file is in its Uname.
func write(entries []tar.Header) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		data := h.Uname
		h.Uname, h.Size, h.Mode = "", int64(len(data)), 0o755
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = io.WriteString(w, data)
		}
		if err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// Read reads a tree from a plain archive.
func Read(r io.Reader) (Model, error) {
	m := Model{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			m[name] = ""
		case tar.TypeSymlink:
			m[name] = ">" + h.Linkname
		case tar.TypeLink:
			m[name] = m[path.Clean(h.Linkname)]
		default:
			data, err := io.ReadAll(tr)
			if err != nil {
				return nil, err
			}
			m[name] = string(data)
		}
	}
}
