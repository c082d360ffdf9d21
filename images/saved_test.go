package images

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/lsub/lsub/hint"
)

// layoutFiles are the files of an OCI layout.
func layoutFiles(t testing.TB, p *parts, top ...v1.Descriptor) map[string][]byte {
	files := map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": mustJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: top}),
	}
	for _, m := range []map[string][]byte{p.blobs, p.manifests} {
		for d, data := range m {
			files["blobs/"+strings.Replace(d, ":", "/", 1)] = data
		}
	}
	return files
}

// dockerFiles are what older dockers save; the second layer is a link, as
// theirs are when another image has it too.
func dockerFiles(t testing.TB, layers ...[]byte) map[string][]byte {
	p := newParts()
	p.image(t, "amd64", layers, nil)
	files := map[string][]byte{}
	for _, data := range p.blobs {
		if bytes.HasPrefix(data, []byte("{")) {
			files["c.json"] = data
		}
	}
	list := []dockerManifest{{Config: "c.json"}}
	for i, l := range layers {
		name := string(rune('a'+i)) + "/layer.tar"
		files[name] = l
		list[0].Layers = append(list[0].Layers, name)
	}
	files["manifest.json"] = mustJSON(t, list)
	return files
}

func tarOf(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(data)), Mode: 0o600}
		if name == "b/layer.tar" {
			h.Name = "shared"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if name == "b/layer.tar" {
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "../shared"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dirOf(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSaved(t *testing.T) {
	p := newParts()
	layers := [][]byte{baseLayer(t), makeTar(t, file("etc/.wh.a"), file("new"))}
	top := p.index(t, on(p.image(t, "amd64", layers, nil), "amd64", ""))
	layout := layoutFiles(t, p, top)
	archive := tarOf(t, layout)
	cache, id := t.TempDir(), ""
	for name, path := range map[string]string{
		"directory": dirOf(t, layout), "tar": writeFile(t, "x.tar", archive),
		"tar.gz": writeFile(t, "x.tgz", compressed(t, archive, compressors["gz"])),
		"docker": writeFile(t, "d.tar", tarOf(t, dockerFiles(t, layers...))),
	} {
		img, err := (&Tarball{CacheDir: cache, Arch: "amd64"}).Pull(t.Context(), FileRef(path), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id == "" {
			id = img.ID
		}
		if img.ID != id || img.Config.User != "1000" || img.Name != "file:"+path {
			t.Errorf("%s: got %+v", name, img)
		}
		if got := strings.Join(tree(t, img), "\n"); !strings.Contains(got, "\nnew ") || strings.Contains(got, "etc/a ") {
			t.Errorf("%s: got %s", name, got)
		}
	}
	left, _ := filepath.Glob(filepath.Join(cache, "saved-*"))
	blobs, _ := filepath.Glob(filepath.Join(cache, "images", "blobs", "*"))
	if len(left) != 0 || len(blobs) != 1 {
		t.Errorf("left %q, blobs %q", left, blobs)
	}
}

func TestSavedLies(t *testing.T) {
	p := newParts()
	top := p.image(t, "amd64", [][]byte{baseLayer(t)}, nil)
	twice := p.image(t, "amd64", [][]byte{baseLayer(t), makeTar(t, file("x"))}, nil)
	spoiled := func(edit func(name string, data []byte) []byte) map[string][]byte {
		files := layoutFiles(t, p, top)
		for name, data := range files {
			if files[name] = edit(name, data); files[name] == nil {
				delete(files, name)
			}
		}
		return files
	}
	docker := dockerFiles(t, baseLayer(t))
	other := dockerFiles(t, baseLayer(t))
	other["a/layer.tar"] = makeTar(t, file("bin/sh"))
	tests := []struct {
		name, want, advice string
		files              map[string][]byte
	}{
		{"missing manifest", "lacks a part", "save it again", spoiled(func(name string, data []byte) []byte {
			if strings.HasSuffix(name, top.Digest.Hex) {
				return nil
			}
			return data
		})},
		{"changed blobs", "in place of sha256:", "", spoiled(func(name string, data []byte) []byte {
			if strings.HasPrefix(name, "blobs/") {
				return bytes.Repeat([]byte("x"), len(data))
			}
			return data
		})},
		{"two images", "holds 2 images", "just the one", layoutFiles(t, p, top, twice)},
		{"changed layer", "as the image says", "do not use", other},
		{"no layer", "lacks a part", "save it again", map[string][]byte{"manifest.json": docker["manifest.json"], "c.json": docker["c.json"]}},
		{"no image", "holds 0 images", "", map[string][]byte{"manifest.json": []byte("[]")}},
		{"no JSON", "cannot be read", "", map[string][]byte{"manifest.json": []byte("[")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, "x.tar", tarOf(t, tt.files))
			_, err := (&Tarball{CacheDir: t.TempDir(), Arch: "amd64"}).Pull(t.Context(), FileRef(path), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(hint.Of(err), tt.advice) {
				t.Errorf("got %v, hint %q", err, hint.Of(err))
			}
		})
	}
}

// TestSavedStaysInside has a layout whose blob is a link to a file beside it.
func TestSavedStaysInside(t *testing.T) {
	p := newParts()
	layout := layoutFiles(t, p, p.image(t, "amd64", [][]byte{baseLayer(t)}, nil))
	dir := dirOf(t, layout)
	secret := writeFile(t, "secret", layout["index.json"])
	if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "index.json")); err != nil {
		t.Skip(err)
	}
	if _, err := (&Tarball{CacheDir: t.TempDir(), Arch: "amd64"}).Pull(t.Context(), FileRef(dir), nil); err == nil {
		t.Error("it was read")
	}
}

// FuzzSaved takes any bytes for an archive of a saved image.
func FuzzSaved(f *testing.F) {
	p := newParts()
	f.Add(tarOf(f, layoutFiles(f, p, p.image(f, "amd64", [][]byte{baseLayer(f)}, nil))))
	f.Add(tarOf(f, dockerFiles(f, baseLayer(f), makeTar(f, file("x")))))
	f.Fuzz(func(t *testing.T, data []byte) {
		tmp, err := os.Open(writeFile(t, "x", data))
		if err != nil {
			t.Fatal(err)
		}
		s, err := openSavedTar(t.Context(), tmp)
		if err != nil {
			return
		}
		defer s.Close()
		c, layers, err := savedImage(t.Context(), s, "amd64")
		if err == nil && (c == nil || len(layers) != len(c.diffs)) {
			t.Fatalf("got %v, %d layers", c, len(layers))
		}
	})
}
