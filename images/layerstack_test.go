package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lsub/lsub/internal/layertest"
	"github.com/lsub/lsub/rootfs"
)

// TestLayerStacks flattens random stacks of layers, each the difference of two trees, and
// wants the last tree. A second opinion is go-containerregistry's, which knows no opaque
// directories; a third, in the VM, is overlayfs's (e2e.TestLayersAsOverlay).
func TestLayerStacks(t *testing.T) {
	asked := 0
	for seed := range uint64(1000) {
		s, err := layertest.NewStack(seed)
		if err != nil {
			t.Fatal(err)
		}
		out, err := flattenAll(t, s.Layers...)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, s.Text, err)
		}
		if got, err := layertest.Read(bytes.NewReader(out)); err != nil || !maps.Equal(got, s.Tree) {
			t.Errorf("seed %d: %s:\ngot  %v, %v\nwant %v", seed, s.Text, got, err, s.Tree)
		}
		if s.Opaque {
			continue
		}
		asked++
		img := empty.Image
		for _, a := range s.Layers {
			l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a)), nil })
			if err == nil {
				img, err = mutate.AppendLayers(img, l)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		other := mutate.Extract(img)
		if theirs, err := layertest.Read(other); err != nil || !maps.Equal(theirs, s.Tree) {
			t.Errorf("seed %d: %s: go-containerregistry has %v, %v, the model %v", seed, s.Text, theirs, err, s.Tree)
		}
		other.Close()
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
			m, err := layertest.Read(r)
			if err != nil {
				t.Fatal(err)
			}
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
