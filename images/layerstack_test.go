package images

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
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lsub/lsub/rootfs"
)

// model is a small tree by path: "" is a directory, ">TARGET" a symbolic link, all else a
// file's content.
type model map[string]string

// remove removes a name and all below it.
func (m model) remove(name string) {
	maps.DeleteFunc(m, func(p, _ string) bool { return p == name || strings.HasPrefix(p, name+"/") })
}

func (m model) isDir(name string) bool {
	v, ok := m[name]
	return name == "." || ok && v == ""
}

// change makes a few random changes, and returns which directories are new: they hide what
// was there before.
func (m model) change(r *rand.Rand) (fresh map[string]bool) {
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
func (before model) layer(after model, fresh map[string]bool, r *rand.Rand) (entries []tar.Header, opaque bool) {
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
			whiteouts, opaque = append(whiteouts, file(name+"/.wh..wh..opq")), true
		}
	}
	for name := range before {
		_, still := after[name]
		if !still && after.isDir(path.Dir(name)) && !fresh[path.Dir(name)] {
			whiteouts = append(whiteouts, file(path.Join(path.Dir(name), ".wh."+path.Base(name))))
			above(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(need)) {
		switch v := after[name]; {
		case !need[name]:
		case v == "":
			entries = append(entries, dir(name))
		case v[0] == '>':
			entries = append(entries, sym(name, v[1:]))
		default:
			entries = append(entries, tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(v)), Uname: v})
		}
	}
	for _, w := range whiteouts { // wherever in the layer they stand
		entries = slices.Insert(entries, r.IntN(len(entries)+1), w)
	}
	return entries, opaque
}

// modelTar writes a layer; the content of a file is in its Uname.
func modelTar(t *testing.T, entries []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		data := h.Uname
		h.Uname, h.Size, h.Mode = "", int64(len(data)), 0o755
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := errors.Join(w.WriteHeader(&h), write(w, data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(w io.Writer, data string) error {
	_, err := io.WriteString(w, data)
	return err
}

// readModel reads a tree from a plain archive.
func readModel(t *testing.T, r io.Reader) model {
	t.Helper()
	m := model{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return m
		}
		if err != nil {
			t.Fatal(err)
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
				t.Fatal(err)
			}
			m[name] = string(data)
		}
	}
}

// TestLayerStacks flattens random stacks of layers, each the difference of two trees, and
// wants the last tree. A second opinion is go-containerregistry's, which knows no opaque
// directories.
func TestLayerStacks(t *testing.T) {
	asked := 0
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 10))
		m, img := model{}, empty.Image
		var archives [][]byte
		var said []string
		anyOpaque := false
		for range 2 + r.IntN(3) {
			before := maps.Clone(m)
			fresh := m.change(r)
			entries, opaque := before.layer(m, fresh, r)
			anyOpaque = anyOpaque || opaque
			for _, h := range entries {
				said = append(said, h.Name+">"+h.Linkname)
			}
			said = append(said, "|")
			archives = append(archives, modelTar(t, entries))
		}
		for _, a := range archives {
			l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a)), nil })
			if err == nil {
				img, err = mutate.AppendLayers(img, l)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		out, err := flattenAll(t, archives...)
		if err != nil {
			t.Fatalf("seed %d: %v: %v", seed, said, err)
		}
		if got := readModel(t, bytes.NewReader(out)); !maps.Equal(got, m) {
			t.Errorf("seed %d: %v:\ngot  %v\nwant %v", seed, said, got, m)
		}
		if anyOpaque {
			continue
		}
		asked++
		other := mutate.Extract(img)
		theirs := readModel(t, other)
		other.Close()
		if !maps.Equal(theirs, m) {
			t.Errorf("seed %d: %v: go-containerregistry has %v, the model %v", seed, said, theirs, m)
		}
	}
	if asked < 250 {
		t.Errorf("a second opinion on %d stacks only", asked)
	}
}

// TestBehindLinks has a plain archive with entries behind a link of its own: they are
// where tar and container engines put them, but never outside of the tree.
func TestBehindLinks(t *testing.T) {
	plain := makeTar(t, file("bin/sh"), dir("app"), dir("app/real"), sym("app/cur", "real"), file("app/cur/f"),
		sym("up", "../../.."), file("up/etc/x"), hard("again", "app/cur/f"), file("app/cur/.wh.sh"))
	for name, data := range map[string][]byte{"plain": plain, "gzip": compressed(t, plain, compressors["gz"])} {
		cache, tarFile := t.TempDir(), writeFile(t, "tree.tar", data)
		var ids []string
		for range 2 {
			img, err := (&Tarball{CacheDir: cache}).Pull(t.Context(), FileRef(tarFile), nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			ids = append(ids, img.ID)
			r, err := img.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			m := readModel(t, r)
			r.Close()
			for file, content := range map[string]string{
				"app/real/f": "app/cur/f", "etc/x": "up/etc/x", "app/cur": ">real", "app/real/.wh.sh": "app/cur/.wh.sh",
			} {
				if want := content; m[file] != want && m[file] != strings.Repeat(want, 100) {
					t.Errorf("%s: %s is %.40q", name, file, m[file])
				}
			}
			if _, ok := m["again"]; !ok || img.Distro != "tree" {
				t.Errorf("%s: the tree has %v, the distro's name is %q", name, slices.Sorted(maps.Keys(m)), img.Distro)
			}
		}
		if ids[0] != ids[1] {
			t.Errorf("%s: twice gave %v", name, ids)
		}
	}
	if _, err := (&Tarball{}).Pull(t.Context(), FileRef(writeFile(t, "tree.tar", plain)), nil); !isBehindLink(err) {
		t.Errorf("without a cache: %v", err)
	}
}

// TestTreeMemory has small layers whose trees would take gigabytes.
func TestTreeMemory(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range 500 {
		name := fmt.Sprint("s", i)
		h := sym(name, fmt.Sprint(i, "/", strings.Repeat("a/", 1900)))
		x := file(name + "/x")
		x.Typeflag = tar.TypeReg
		if err := errors.Join(w.WriteHeader(&h), w.WriteHeader(&x)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	layers := layersOf(b.Bytes())
	layers[0].size = 20 << 10 // as if it were compressed
	var limit *rootfs.LimitError
	err := (&flattener{layers: layers}).flatten(t.Context(), io.Discard)
	if !errors.As(err, &limit) || !strings.Contains(err.Error(), "out of proportion") {
		t.Errorf("got %v", err)
	}
}
