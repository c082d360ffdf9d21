package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

func layersOf(archives ...[]byte) []layer {
	var layers []layer
	for _, a := range archives {
		sum := newDigester()
		sum.Write(a)
		layers = append(layers, layer{digest: sum.String(), diffID: sum.String(), open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(a)), nil
		}})
	}
	return layers
}

func flattenAll(t testing.TB, archives ...[]byte) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	f := &flattener{layers: layersOf(archives...), state: &rootfs.State{MaxBytes: 1 << 20, MaxEntries: 1000}}
	err := f.flatten(t.Context(), &b)
	return b.Bytes(), err
}

// file, dir, sym and hard describe the entries of a layer.
func file(name string) tar.Header { return tar.Header{Name: name} }
func dir(name string) tar.Header  { return tar.Header{Name: name + "/", Typeflag: tar.TypeDir} }
func sym(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
}
func hard(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}
}
func layerOf(h ...tar.Header) []tar.Header { return h }

// TestFlatten gives names only; "name>target" is a link of either kind.
func TestFlatten(t *testing.T) {
	tests := []struct {
		name   string
		layers [][]tar.Header
		want   string
	}{
		{"one", [][]tar.Header{layerOf(dir("."), file("b"), file("a"))}, "./ b a"},
		{"parents come first", [][]tar.Header{layerOf(file("x/y/z"), dir("x"))}, "x/ x/y/ x/y/z"},
		{"later wins", [][]tar.Header{layerOf(file("a"), sym("a", "b"))}, "a>b"},
		{"file for directory", [][]tar.Header{layerOf(file("a/b")), layerOf(file("a"))}, "a"},
		{"directory for file", [][]tar.Header{layerOf(file("a")), layerOf(file("a/b"))}, "a/ a/b"},
		{"whiteout", [][]tar.Header{layerOf(file("d/a"), file("d/b")), layerOf(file("d/.wh.a"))}, "d/ d/b"},
		{"whiteout of a directory", [][]tar.Header{layerOf(file("d/a/x"), file("d/b")), layerOf(file("d/.wh.a"))}, "d/ d/b"},
		{"whiteout of nothing there", [][]tar.Header{layerOf(file("d/a")), layerOf(file("x/.wh.a"), file("d/.wh.z"))}, "d/ d/a"},
		{"whiteout spares its own layer", [][]tar.Header{layerOf(file("d/a/old")), layerOf(file("d/a/new"), file("d/.wh.a"))}, "d/ d/a/ d/a/new"},
		{"opaque", [][]tar.Header{layerOf(file("d/a"), file("d/e/f")), layerOf(dir("d"), file("d/new"), file("d/.wh..wh..opq"))}, "d/ d/new"},
		{"opaque first", [][]tar.Header{layerOf(file("d/a"), file("d/e/f")), layerOf(file("d/.wh..wh..opq"), file("d/e/new"))}, "d/ d/e/ d/e/new"},
		{"opaque root", [][]tar.Header{layerOf(file("a")), layerOf(file(".wh..wh..opq"), file("b"))}, "b"},
		{"aufs notes", [][]tar.Header{layerOf(file("a"), file(".wh..wh.aufs"), file(".wh..wh.orph/x"))}, ".wh..wh.orph/ a .wh..wh.orph/x"},
		{"hard link across layers", [][]tar.Header{layerOf(file("b")), layerOf(hard("a", "b"))}, "a b>a"},
		{"hard link outlives its target", [][]tar.Header{layerOf(file("b")), layerOf(hard("a", "b")), layerOf(file(".wh.b"))}, "a"},
		{"hard link to a link", [][]tar.Header{layerOf(sym("b", "c")), layerOf(hard("a", "/b"))}, "a>c b>a"},
		{"absolute name", [][]tar.Header{layerOf(file("/a"))}, "a"},
		{"lower link to a directory", [][]tar.Header{layerOf(file("usr/lib/a"), sym("lib", "usr/lib")), layerOf(file("lib/b"), file("lib/.wh.a"))},
			"usr/ usr/lib/ lib>usr/lib usr/lib/b"},
		{"whiteout through a link of its own layer", [][]tar.Header{layerOf(file("a/a"), file("b/a")), layerOf(sym("a", "b"), file("a/.wh.a"))}, "b/ a>b b/a"},
		{"opaque directory for a link", [][]tar.Header{layerOf(file("target/keep"), sym("link", "/target")), layerOf(file("link/.wh..wh..opq"), dir("link"), file("link/new"))},
			"link/ target/ link/new target/keep"},
		{"whiteout in a directory for a link", [][]tar.Header{layerOf(file("target/keep"), sym("link", "/target")), layerOf(file("link/.wh.keep"), dir("link"))},
			"link/ target/ target/keep"},
		{"whiteout before what stays", [][]tar.Header{layerOf(file("d/a")), layerOf(file(".wh.d"), file("d/b"))}, "d/ d/b"},
		{"link out of the tree", [][]tar.Header{layerOf(sym("x", "../../../etc")), layerOf(file("x/passwd"))}, "etc/ x>../../../etc etc/passwd"},
		{"absolute link", [][]tar.Header{layerOf(sym("d/x", "/etc"), file("d/x/a"))}, "d/ etc/ d/x>/etc etc/a"},
		{"hard link behind a link", [][]tar.Header{layerOf(file("etc/a"), sym("x", "/etc")), layerOf(hard("b", "x/a"))}, "etc/ b x>/etc etc/a>b"},
		{"no UTF-8", [][]tar.Header{layerOf(file("\xff\xfe")), layerOf(hard("z", "\xff\xfe"))}, "z \xff\xfe>z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var archives [][]byte
			for _, l := range tt.layers {
				archives = append(archives, makeTar(t, l...))
			}
			data, err := flattenAll(t, archives...)
			if err != nil {
				t.Fatal(err)
			}
			again, _ := flattenAll(t, archives...)
			if !bytes.Equal(data, again) {
				t.Error("the same layers gave other bytes")
			}
			var got []string
			for tr := tar.NewReader(bytes.NewReader(data)); ; {
				h, err := tr.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if h.Linkname != "" {
					h.Name += ">" + h.Linkname
				}
				got = append(got, h.Name)
			}
			want := strings.Fields(tt.want)
			slices.SortFunc(got, byKind)
			slices.SortFunc(want, byKind)
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// byKind sorts directories first; their own order and that of files is the
// policy's to check.
func byKind(a, b string) int {
	if x, y := strings.HasSuffix(a, "/"), strings.HasSuffix(b, "/"); x != y {
		if x {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

func TestFlattenRefuses(t *testing.T) {
	deep, long := strings.Repeat("a/", 1500)+"x", strings.Repeat("a", 200)+"/"
	tests := []struct {
		name   string
		layers [][]tar.Header
		want   string
	}{
		{"dot dot", [][]tar.Header{layerOf(file("../x"))}, `has ".." in its name`},
		{"hard link out", [][]tar.Header{layerOf(hard("x", "../../etc/shadow"))}, "out of the tree"},
		{"hard link to nothing", [][]tar.Header{layerOf(hard("x", "/etc/shadow"))}, "which no layer has"},
		{"hard link to a directory", [][]tar.Header{layerOf(dir("d"), hard("x", "d"))}, "which is a directory"},
		{"hard link to what was removed", [][]tar.Header{layerOf(file("a")), layerOf(file(".wh.a"), hard("x", "a"))}, "which no layer has"},
		{"links in a circle", [][]tar.Header{layerOf(sym("a", "b"), sym("b", "a"), file("a/x"))}, "too many symbolic links"},
		{"whiteout of nothing", [][]tar.Header{layerOf(file("d/.wh."))}, "whiteout of nothing"},
		{"whiteout of the parent", [][]tar.Header{layerOf(file("d/.wh..."))}, "whiteout of nothing"},
		{"root as a link", [][]tar.Header{layerOf(sym("./", "/etc"))}, "stands for the root directory"},
		{"a long target", [][]tar.Header{layerOf(sym("s", strings.Repeat("a/", 2500)), file("s/x"))}, "without a valid target"},
		{"a long way by links", [][]tar.Header{layerOf(sym("s", strings.Repeat(long, 15)), sym("s/t", strings.Repeat(long, 10)), file("s/t/x"))}, "name that is too long"},
		{"too many directories", [][]tar.Header{layerOf(file(deep))}, "more than 1000 entries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var archives [][]byte
			for _, l := range tt.layers {
				archives = append(archives, makeTar(t, l...))
			}
			if _, err := flattenAll(t, archives...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	var le *rootfs.LimitError
	header := makeTar(t, tar.Header{Name: "g", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}})
	if _, err := flattenAll(t, bytes.Repeat(header[:len(header)-1024], 1001)); !errors.As(err, &le) {
		t.Errorf("got %v, want a limit", err)
	}
	changed := layersOf(makeTar(t, file("a")))
	changed[0].diffID = "sha256:0"
	if err := (&flattener{layers: changed}).flatten(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "as the image says") {
		t.Errorf("got %v", err)
	}
}

// FuzzFlatten takes any bytes for two layers: no panic, and what comes out is
// an archive that the policy accepts, but for the devices it refuses.
func FuzzFlatten(f *testing.F) {
	f.Add(baseLayer(f), makeTar(f, file("etc/.wh.a"), hard("x", "bin/sh")))
	f.Add(makeTar(f, sym("x", "../etc"), dir("d")), makeTar(f, file("x/y"), file("d/.wh..wh..opq")))
	f.Add(compressed(f, makeTar(f, file("\xff")), compressors["gz"]), makeTar(f, hard("z", "\xff")))
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		layers := layersOf(lower, upper)
		for i, l := range layers { // sums are not what this is about
			z, err := l.openTar(t.Context(), 0, func(int64) {})
			if err != nil {
				return
			}
			sum := newDigester()
			if _, err := io.Copy(sum, io.LimitReader(z, 64<<20)); err != nil {
				return
			}
			layers[i].diffID = sum.String()
		}
		var b bytes.Buffer
		fl := &flattener{layers: layers, state: &rootfs.State{MaxBytes: 1 << 20, MaxEntries: 1000}}
		if fl.flatten(t.Context(), &b) != nil {
			return
		}
		var entry *rootfs.EntryError
		var unusable *rootfs.UnusableError
		err := CheckTar(t.Context(), &b, new(rootfs.State))
		if err != nil && !errors.As(err, &unusable) && !errors.As(err, &entry) {
			t.Fatal(err)
		}
		if entry != nil && (strings.Contains(entry.Reason, "lies behind") || strings.Contains(entry.Reason, `".."`)) {
			t.Fatal(err)
		}
	})
}

// FuzzManifest takes any bytes for what describes an image.
func FuzzManifest(f *testing.F) {
	p := newParts()
	top := p.image(f, "amd64", [][]byte{baseLayer(f)}, nil)
	f.Add(p.manifests[top.Digest.String()])
	index := p.index(f, on(top, "amd64", ""))
	f.Add(p.manifests[index.Digest.String()])
	for _, b := range p.blobs {
		if bytes.HasPrefix(b, []byte("{")) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseManifest(data); err == nil {
			if m.Manifests == nil && m.Config == nil {
				t.Fatal("neither an index nor an image")
			}
			choose(m.Manifests, "amd64")
		}
		if c, err := parseConfig(data, "amd64"); err == nil && c == nil {
			t.Fatal("no container")
		}
	})
}

// A sparse file stays one, and an attribute without a value stays there.
func TestFlattenSparse(t *testing.T) {
	h := tar.Header{Typeflag: tar.TypeReg, Name: "holes", Size: 5 << 30, PAXRecords: map[string]string{"SCHILY.xattr.user.none": ""}}
	want := []pax.Extent{{Offset: 4096, Size: 3}, {Offset: 4 << 30, Size: 2}}
	b, err := pax.AppendHeader(nil, &h, want)
	if err != nil {
		t.Fatal(err)
	}
	b = pax.AppendEnd(pax.AppendPadding(append(b, "abcde"...), 5))
	flat, err := flattenAll(t, b, makeTar(t, file("plain")))
	if err != nil {
		t.Fatal(err)
	}
	r := pax.NewReader(bytes.NewReader(flat))
	got, err := r.Next()
	if err != nil || got.Name != "holes" || got.Size != h.Size || !slices.Equal(r.Extents(), want) {
		t.Errorf("%+v, %v, %v", got, r.Extents(), err)
	}
	if data, err := io.ReadAll(r); string(data) != "abcde" || err != nil {
		t.Errorf("data %q, %v", data, err)
	}
	if _, ok := pax.Xattrs(got)["user.none"]; !ok {
		t.Errorf("attributes: %v", got.PAXRecords)
	}
	if got, err = r.Next(); err != nil || got.Name != "plain" {
		t.Errorf("behind it: %+v, %v", got, err)
	}
}
