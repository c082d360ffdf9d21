package images

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

// supplier serves a root file system's plain archive the way one kind of source
// has it, and pulls it from there into a cache.
type supplier struct {
	name    string
	layered bool // as a layer of a container image, where names go through links and duplicates do not last
	pull    func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error)
}

// serveFiles serves files over https.
func serveFiles(t *testing.T, files map[string][]byte) *testWeb {
	s, roots := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	return &testWeb{s.URL, func(cache string, maxBytes int64) *HTTPS {
		return &HTTPS{CacheDir: cache, MaxBytes: maxBytes, Roots: roots, wait: time.Millisecond}
	}, roots}
}

type testWeb struct {
	url   string
	https func(cache string, maxBytes int64) *HTTPS
	roots *x509.CertPool
}

// suppliers are all kinds of sources but those that make what they give
// (Debian), and squashfs images, whose own lies their package tests.
func suppliers() []supplier {
	fromFile := func(name string, wrap func(t *testing.T, plain []byte) []byte) supplier {
		return supplier{"file " + name, false, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
			src := &Tarball{CacheDir: cache, MaxBytes: maxBytes}
			return src.Pull(t.Context(), FileRef(writeFile(t, name, wrap(t, plain))), nil)
		}}
	}
	packed := func(format string) func(t *testing.T, plain []byte) []byte {
		return func(t *testing.T, plain []byte) []byte {
			if _, err := exec.LookPath("xz"); err == nil && format == "xz" && len(plain) > 1<<20 {
				cmd := exec.CommandContext(t.Context(), "xz", "-c1T0") // package xz takes minutes
				cmd.Stdin = bytes.NewReader(plain)
				data, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				return data
			}
			return compressed(t, plain, compressors[format])
		}
	}
	layout := func(t *testing.T, plain []byte) map[string][]byte {
		p := newParts()
		return layoutFiles(t, p, p.image(t, runtime.GOARCH, [][]byte{plain}, nil))
	}
	saved := func(name string, files func(t *testing.T, plain []byte) map[string][]byte) supplier {
		s := fromFile(name, func(t *testing.T, plain []byte) []byte { return tarOf(t, files(t, plain)) })
		s.layered = true
		return s
	}
	all := []supplier{
		fromFile("root.tar", func(_ *testing.T, plain []byte) []byte { return plain }),
		fromFile("root.tar.gz", packed("gz")), fromFile("root.tar.xz", packed("xz")), fromFile("root.tar.zst", packed("zst")),
		saved("layout.tar", layout),
		saved("docker.tar", func(t *testing.T, plain []byte) map[string][]byte { return dockerFiles(t, plain) }),
		{"layout directory", true, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
			return (&Tarball{CacheDir: cache, MaxBytes: maxBytes}).Pull(t.Context(), FileRef(dirOf(t, layout(t, plain))), nil)
		}},
		{"registry", true, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
			p := newParts()
			reg := serveRegistry(t)
			ref := reg.push(t, p, p.index(t, on(p.image(t, runtime.GOARCH, [][]byte{plain}, nil), runtime.GOARCH, "")))
			src := testOCI(cache)
			src.Arch, src.MaxBytes = "", maxBytes
			return src.Pull(t.Context(), ref, nil)
		}},
		{"https", false, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
			data := packed("gz")(t, plain)
			web := serveFiles(t, map[string][]byte{"/x.tgz": data})
			return web.https(cache, maxBytes).Pull(t.Context(), webRef(t, web.url+"/x.tgz", data), nil)
		}},
		{"https saved", true, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
			data := tarOf(t, layout(t, plain))
			web := serveFiles(t, map[string][]byte{"/x.tar": data})
			return web.https(cache, maxBytes).Pull(t.Context(), webRef(t, web.url+"/x.tar", data), nil)
		}},
		{"WSL manifest", false, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
			return pullManifest(t, packed("gz")(t, plain), cache, maxBytes)
		}},
		{"simplestreams", false, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
			return pullStreams(t, "root.tar.xz", packed("xz")(t, plain), cache, maxBytes)
		}},
	}
	if _, err := exec.LookPath("bzip2"); err == nil { // Go only reads that
		all = append(all, fromFile("root.tar.bz2", bzip2ed))
	}
	return all
}

// bzip2ed packs data with the host's bzip2.
func bzip2ed(t *testing.T, data []byte) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bzip2", "-c")
	cmd.Stdin = bytes.NewReader(data)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// pullManifest offers data in a manifest of WSL's and pulls it from there.
func pullManifest(t *testing.T, data []byte, cache string, maxBytes int64) (*Image, error) {
	files := map[string][]byte{"/d.wsl": data}
	web := serveFiles(t, files)
	files["/i.json"] = fmt.Appendf(nil, `{"ModernDistributions":{"Test":[{"Name":"Test-1","Default":true,"Amd64Url":{"Url":"%s/d.wsl","Sha256":"0x%s"}}]}}`,
		web.url, dataDigest(data).Hex)
	return pullOffer(t, web, web.url+"/i.json", cache, maxBytes)
}

// pullStreams is pullManifest for a simplestreams server.
func pullStreams(t *testing.T, kind string, data []byte, cache string, maxBytes int64) (*Image, error) {
	web := serveFiles(t, map[string][]byte{
		"/streams/v1/index.json": []byte(`{"index":{"images":{"datatype":"image-downloads","path":"streams/v1/images.json"}}}`), "/images/d": data,
		"/streams/v1/images.json": fmt.Appendf(nil, `{"products":{"x":{"arch":"amd64","os":"Test","release":"1","versions":{"20260101":{"items":{"x":{"ftype":%q,"path":"images/d","sha256":%q,"size":%d}}}}}}}`,
			kind, dataDigest(data).Hex, len(data)),
	})
	return pullOffer(t, web, web.url, cache, maxBytes)
}

// OfferOf returns the image that a name means in the catalogue at an address.
// Tests of package images_test set it: package catalogue imports this one.
var OfferOf func(ctx context.Context, address string, roots *x509.CertPool, name, arch string) (Ref, error)

func pullOffer(t *testing.T, web *testWeb, catalogue string, cache string, maxBytes int64) (*Image, error) {
	ref, err := OfferOf(t.Context(), catalogue, web.roots, "test", "amd64")
	if err != nil {
		return nil, err
	}
	return web.https(cache, maxBytes).Pull(t.Context(), ref, nil)
}

// raw appends entries that package tar does not write.
func raw(t testing.TB, headers ...*tar.Header) []byte {
	var b []byte
	for _, h := range append(headers, &tar.Header{Name: "bin/sh", Typeflag: tar.TypeReg, Mode: 0o755}) {
		var err error
		h.ModTime = time.Unix(0, 0)
		if b, err = pax.AppendHeader(b, h, nil); err != nil {
			t.Fatal(err)
		}
		b = pax.AppendPadding(append(b, make([]byte, h.Size)...), h.Size)
	}
	return pax.AppendEnd(b)
}

// TestSources pulls the same tree from every source.
func TestSources(t *testing.T) {
	plain := makeTar(t, dir("bin"), file("bin/sh"), dir("opt"), file("opt/\xff\xfe"), hard("opt/same", "bin/sh"))
	var want []string
	for _, s := range suppliers() {
		img, err := s.pull(t, plain, t.TempDir(), 0)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		got := tree(t, img)
		slices.Sort(got)
		if s.layered { // where the directories come first
			if len(got) != 5 || !strings.HasPrefix(got[4], "opt/\xff\xfe 0 0 0:0 ") && !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "opt/\xff\xfe ") }) {
				t.Errorf("%s: got %q", s.name, got)
			}
			continue
		}
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) || img.ID != dataDigest(plain).String() {
			t.Errorf("%s: got %q, want %q", s.name, got, want)
		}
	}
}

// TestLies has every source give every kind of archive that means harm. What is
// refused leaves nothing in the cache; what is taken stays inside its tree.
func TestLies(t *testing.T) {
	const floor = 64 << 10
	link := func(name, to string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	hard := func(name, to string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
	}
	reg := func(name string, size int64) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}
	}
	good := raw(t, reg("etc/passwd", 3000))
	tests := []struct {
		name  string
		plain []byte
		want  string // the error of a plain archive; "": none
		layer string // of a container image; "": none
	}{
		{"through a symbolic link", raw(t, link("x", "/etc"), reg("x/passwd", 9)), "", ""},
		{"through a link upwards", raw(t, link("x", "../../.."), reg("x/passwd", 9)), "", ""},
		{"hard link out", raw(t, hard("x", "../../etc/shadow")), "out of the tree", "out of the tree"},
		{"absolute hard link", raw(t, hard("x", "/etc/shadow")), "out of the tree", "which no layer has"},
		{"hard link through a link", raw(t, link("x", "/etc"), hard("y", "x/shadow")), "which the archive does not have", "which no layer has"},
		{"upwards", raw(t, reg("../x", 9)), `has ".." in its name`, `has ".." in its name`},
		{"upwards, later", raw(t, reg("a/../../x", 9)), `has ".." in its name`, `has ".." in its name`},
		{"absolute name", raw(t, reg("/etc/passwd", 9)), "has an absolute name", ""},
		{"disk", raw(t, &tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8}), "block device 8:0", "block device 8:0"},
		{"memory", raw(t, &tar.Header{Name: "dev/mem", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1}), "character device 1:1", "character device 1:1"},
		{"owner", raw(t, &tar.Header{Name: "x", Typeflag: tar.TypeReg, Uid: 1<<32 - 1}), "has owner", "has owner"},
		{"cut in a file", good[:1024], "is cut off", "is cut off"},
		{"too large", raw(t, reg("big", 64*floor+1)), "holds more than|times its size", "holds more than|times its size"},
		{"grows", raw(t, reg("zeros", 30*floor)), "times its size", "times its size"},
		{"sparse", sparseTar(t, 100<<30), "", ""},
		{"twice", raw(t, reg("x", 1), reg("x", 700), link("x", "/etc"), reg("x", 2)), "", ""},
		{"a directory in the place of a link", raw(t, link("x", "/etc"), &tar.Header{Name: "x/", Typeflag: tar.TypeDir}, reg("x/y", 1)), "", ""},
		{"not UTF-8", raw(t, reg("a\xff\xfe/\x80", 1), link("\xc3", "\xe2\x28")), "", ""},
		{"a line of its own", raw(t, reg("a\nb\x1b[2J", 1)), "", ""},
	}
	for _, s := range suppliers() {
		t.Run(s.name, func(t *testing.T) {
			for _, tt := range tests {
				cache, want := t.TempDir(), tt.want
				if s.layered {
					want = tt.layer
				}
				if tt.name == "grows" && (s.name == "file root.tar" || s.name == "file docker.tar") {
					want = "" // nothing is packed there
				}
				img, err := s.pull(t, tt.plain, cache, 64*floor)
				says := func(want string) bool { return err != nil && strings.Contains(err.Error(), want) }
				if want == "" && err != nil || want != "" && !slices.ContainsFunc(strings.Split(want, "|"), says) {
					t.Errorf("%s: got %v, want %q", tt.name, err, want)
				}
				if err == nil {
					checkInside(t, tt.name, img)
					continue
				}
				if strings.ContainsFunc(err.Error(), func(r rune) bool { return r == 0x1b || r == utf8.RuneError }) {
					t.Errorf("%s: the error has what a terminal obeys: %q", tt.name, err)
				}
				left, _ := filepath.Glob(filepath.Join(cache, "images", "blobs", "*"))
				more, _ := filepath.Glob(filepath.Join(cache, "images", "tmp-*"))
				if len(left)+len(more) != 0 {
					t.Errorf("%s: left %q %q", tt.name, left, more)
				}
			}
		})
	}
}

// checkInside unpacks the headers of an image that was taken as the guest does.
func checkInside(t *testing.T, name string, img *Image) {
	t.Helper()
	if img.Size > 64<<20 {
		t.Errorf("%s: the archive has %d bytes", name, img.Size)
		return
	}
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	st, tr := new(rootfs.State), pax.NewReader(r)
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		if err := rootfs.CheckHeader(h, st); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if clean, err := rootfs.Clean(h.Name); err != nil || !filepath.IsLocal(clean) {
			t.Errorf("%s: it has %q", name, h.Name)
		}
	}
	if err := st.Finish(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// sparseTar has a file of size bytes that is one hole but for its end.
func sparseTar(t testing.TB, size int64) []byte {
	t.Helper()
	b, err := pax.AppendHeader(nil, &tar.Header{Name: "hole", Typeflag: tar.TypeReg, Size: size}, []pax.Extent{{Offset: size - 512, Size: 512}})
	if err != nil {
		t.Fatal(err)
	}
	return append(append(b, make([]byte, 512)...), raw(t)...)
}

// TestLastOfDuplicates reads in a flattened image what of a name stayed, and
// that a file with a hole keeps it.
func TestLastOfDuplicates(t *testing.T) {
	lower := raw(t, &tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 1}, &tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 5})
	out, err := flattenAll(t, lower, sparseTar(t, 100<<30))
	if err != nil {
		t.Fatal(err)
	}
	sizes, tr := map[string][]int64{}, pax.NewReader(bytes.NewReader(out))
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		sizes[h.Name] = append(sizes[h.Name], h.Size)
		if h.Name == "hole" && !slices.Equal(tr.Extents(), []pax.Extent{{Offset: 100<<30 - 512, Size: 512}}) {
			t.Errorf("got %v", tr.Extents())
		}
	}
	if !slices.Equal(sizes["x"], []int64{5}) || !slices.Equal(sizes["hole"], []int64{100 << 30}) || len(out) > 16<<10 {
		t.Errorf("got %v, %d bytes", sizes, len(out))
	}
}

// TestWrongArchitecture asks each source that knows architectures for one that
// it does not have.
func TestWrongArchitecture(t *testing.T) {
	p := newParts()
	other := "riscv64"
	top := p.image(t, other, [][]byte{baseLayer(t)}, nil)
	files := layoutFiles(t, p, top)
	data := tarOf(t, files)
	web := serveFiles(t, map[string][]byte{"/x.tar": data})
	reg := serveRegistry(t)
	ref := reg.push(t, p, top)
	list := serveFiles(t, map[string][]byte{"/i.json": []byte(`{"ModernDistributions":{"Test":[{"Name":"Test-1","Default":true,"Arm64Url":{"Url":"https://h/x","Sha256":"` +
		strings.Repeat("a", 64) + `"}}]}}`)})
	for name, pull := range map[string]func() error{
		"registry": func() error { _, err := testOCI(t.TempDir()).Pull(t.Context(), ref, nil); return err },
		"layout": func() error {
			_, err := (&Tarball{CacheDir: t.TempDir()}).Pull(t.Context(), FileRef(dirOf(t, files)), nil)
			return err
		},
		"https": func() error {
			_, err := web.https(t.TempDir(), 0).Pull(t.Context(), webRef(t, web.url+"/x.tar", data), nil)
			return err
		},
		"catalogue": func() error {
			_, err := OfferOf(t.Context(), list.url+"/i.json", list.roots, "test", "amd64")
			return err
		},
	} {
		if err := pull(); err == nil || !strings.Contains(err.Error(), other) && !strings.Contains(err.Error(), "offered for arm64") && !strings.Contains(fmt.Sprint(err), "nothing for linux/") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestCatalogueLies has servers whose lists and files do not fit each other.
func TestCatalogueLies(t *testing.T) {
	good := compressed(t, goodTar(t), compressors["xz"])
	squash, err := os.ReadFile(filepath.Join("internal", "squashfs", "testdata", "xz.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	spoiled := bytes.Clone(squash) // its sum is right, so the maker lies
	copy(spoiled[32:], "\xff\xff\xff\xff\xff\xff")
	for name, tt := range map[string]struct {
		kind string
		data []byte
		want string
	}{
		"squashfs":         {"squashfs", squash, ""},
		"spoiled squashfs": {"squashfs", spoiled, "is damaged"},
		"cut squashfs":     {"squashfs", squash[:5000], "is cut off"},
		"tar as squashfs":  {"squashfs", good, ""},
		"squashfs as tar":  {"root.tar.xz", squash, ""},
		"text":             {"squashfs", []byte("text"), "is not a tar archive"},
	} {
		img, err := pullStreams(t, tt.kind, tt.data, t.TempDir(), 0)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if err == nil {
			checkInside(t, name, img)
			if img.Name != "test-1@20260101" {
				t.Errorf("%s: got %+v", name, img)
			}
		}
	}
}

// TestSquashfsFile installs a squashfs image from a file: read twice, as tar
// archives are, with the same bytes.
func TestSquashfsFile(t *testing.T) {
	path := filepath.Join("internal", "squashfs", "testdata", "zstd.squashfs")
	cache := t.TempDir()
	img, err := (&Tarball{CacheDir: cache}).Pull(t.Context(), FileRef(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := tree(t, img)
	if len(got) != 319 || !slices.Contains(got, "./etc/same 1 644 0:0 ./etc/passwd") {
		t.Errorf("got %d entries", len(got))
	}
	if left, _ := os.ReadDir(cache); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	_, err = pullFile(t, filepath.Join("internal", "squashfs", "testdata", "lzo.squashfs"))
	if err == nil || !strings.Contains(err.Error(), "squashfs packed with lzo: not supported") {
		t.Errorf("got %v", err)
	}
}

// TestBombs has archives of 100 GiB, packed to some MiB, with the usual limits:
// their headers say it, so that nothing is unpacked.
func TestBombs(t *testing.T) {
	header, err := pax.AppendHeader(nil, &tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 100 << 30}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const part = 64 << 20
	zeros := make([]byte, part)
	for _, format := range []string{"gz", "xz", "zst", "bz2"} {
		pack := func(data []byte) []byte { return compressed(t, data, compressors[format]) }
		if format == "bz2" {
			if _, err := exec.LookPath("bzip2"); err != nil {
				t.Logf("bz2: left out: %v", err)
				continue
			}
			pack = func(data []byte) []byte { return bzip2ed(t, data) }
		}
		data := append(pack(header), bytes.Repeat(pack(zeros), 100<<30/part)...)
		start := time.Now()
		_, err := pullFile(t, writeFile(t, "bomb", data))
		if !errors.As(err, new(*bombError)) {
			t.Errorf("%s: got %v", format, err)
		}
		t.Logf("%s: %d bytes, refused in %v", format, len(data), time.Since(start))
	}
}

// TestProportion has the limits of archives of all sizes.
func TestProportion(t *testing.T) {
	for packed, want := range map[int64]int64{
		0: 4 << 30, 1 << 20: 4 << 30, 100 << 20: 20000 << 20, 1 << 30: 200 << 30, 10 << 30: 256 << 30, 1 << 62: 256 << 30,
	} {
		if got := packedLimits(0, packed).MaxBytes; got != want {
			t.Errorf("%d bytes: got %d, want %d", packed, got, want)
		}
	}
}
