package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	regtest "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/rootfs"
)

// parts are the blobs and manifests of container images, made in a test.
type parts struct {
	blobs     map[string][]byte
	manifests map[string][]byte
}

func newParts() *parts { return &parts{map[string][]byte{}, map[string][]byte{}} }

func digestOf(data []byte) v1.Hash {
	sum := newDigester()
	sum.Write(data)
	h, _ := v1.NewHash(sum.String())
	return h
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (p *parts) addBlob(data []byte, mt types.MediaType) v1.Descriptor {
	d := v1.Descriptor{MediaType: mt, Size: int64(len(data)), Digest: digestOf(data)}
	p.blobs[d.Digest.String()] = data
	return d
}

func (p *parts) addManifest(data []byte, mt types.MediaType) v1.Descriptor {
	d := v1.Descriptor{MediaType: mt, Size: int64(len(data)), Digest: digestOf(data)}
	p.manifests[d.Digest.String()] = data
	return d
}

// image adds an image of plain layers, which it compresses; edit may spoil its
// configuration.
func (p *parts) image(t testing.TB, arch string, layers [][]byte, edit func(*v1.ConfigFile)) v1.Descriptor {
	t.Helper()
	cf := &v1.ConfigFile{Architecture: arch, OS: "linux", Config: v1.Config{User: "1000", Env: []string{"A=b"}, Cmd: []string{"sh"}}}
	cf.RootFS.Type = "layers"
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, l := range layers {
		cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, digestOf(l))
		data := l // the third one is plain
		switch i {
		case 0:
			data = compressed(t, l, compressors["gz"])
		case 1:
			data = compressed(t, l, compressors["zst"])
		}
		m.Layers = append(m.Layers, p.addBlob(data, types.OCILayer))
	}
	if edit != nil {
		edit(cf)
	}
	m.Config = p.addBlob(mustJSON(t, cf), types.OCIConfigJSON)
	return p.addManifest(mustJSON(t, m), types.OCIManifestSchema1)
}

func (p *parts) index(t testing.TB, list ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	return p.addManifest(mustJSON(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: list}), types.OCIImageIndex)
}

func on(d v1.Descriptor, arch, variant string) v1.Descriptor {
	d.Platform = &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}
	return d
}

// testRegistry is go-containerregistry's, with a hand in between.
type testRegistry struct {
	*httptest.Server
	mu    sync.Mutex
	spoil func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	got   []string                                          // paths asked for
}

func serveRegistry(t *testing.T) *testRegistry {
	t.Helper()
	inner := regtest.New(regtest.Logger(log.New(io.Discard, "", 0)))
	reg := new(testRegistry)
	reg.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reg.mu.Lock()
		spoil := reg.spoil
		if r.Method == http.MethodGet {
			reg.got = append(reg.got, r.URL.Path)
		}
		reg.mu.Unlock()
		if spoil == nil || !spoil(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(reg.Close)
	t.Setenv("HOME", t.TempDir()) // no credentials
	t.Setenv("DOCKER_CONFIG", "")
	return reg
}

func (r *testRegistry) host() string { return strings.TrimPrefix(r.URL, "http://") }

func (r *testRegistry) setSpoil(f func(w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoil, r.got = f, nil
}

// push uploads the parts and tags top; the result names it.
func (r *testRegistry) push(t *testing.T, p *parts, top v1.Descriptor) Ref {
	t.Helper()
	send := func(method, path string, mt types.MediaType, data []byte) {
		req, err := http.NewRequest(method, r.URL+"/v2/os/test/"+path, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", string(mt))
		resp, err := r.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			body, _ := io.ReadAll(resp.Body)
			t.Fatalf("%s %s: %s %s", method, path, resp.Status, body)
		}
	}
	for d, data := range p.blobs {
		send("POST", "blobs/uploads/?digest="+d, "application/octet-stream", data)
	}
	for d, data := range p.manifests {
		if !bytes.Contains(data, []byte(`"manifests"`)) {
			send("PUT", "manifests/"+d, types.OCIManifestSchema1, data)
		}
	}
	send("PUT", "manifests/latest", top.MediaType, p.manifests[top.Digest.String()])
	return Ref{Source: "oci", Version: r.host() + "/os/test:latest", Insecure: true}
}

func testOCI(cache string) *OCI {
	return &OCI{CacheDir: cache, Arch: "amd64", backoff: remote.Backoff{Duration: time.Millisecond, Steps: 2}}
}

// tree reads an image's archive: "name type mode uid:gid content-or-target".
func tree(t testing.TB, img *Image) []string {
	t.Helper()
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	list := list(t, r)
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	return list
}

func list(t testing.TB, r io.Reader) []string {
	t.Helper()
	var list []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s %c %o %d:%d %s%.12s", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, data)
		for k, v := range h.PAXRecords {
			if strings.HasPrefix(k, "SCHILY.") {
				line += " " + strings.TrimPrefix(k, "SCHILY.xattr.") + "=" + v
			}
		}
		list = append(list, line)
	}
}

func baseLayer(t testing.TB) []byte {
	return makeTar(t, tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "bin/sh", Mode: 0o4755, Uid: 7, Gid: 8,
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "cap\x00x"}},
		tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "etc/a"}, tar.Header{Name: "etc/b"})
}

func TestOCI(t *testing.T) {
	p := newParts()
	layers := [][]byte{
		baseLayer(t),
		makeTar(t, tar.Header{Name: "etc/.wh.a"}, tar.Header{Name: "bin/bash", Linkname: "bin/sh", Typeflag: tar.TypeLink}),
		makeTar(t, tar.Header{Name: "opt/\xff\xfe", Mode: 0o600}),
	}
	other := p.image(t, "arm64", layers[:1], nil)
	top := p.index(t, on(other, "arm64", "v8"), on(p.image(t, "amd64", layers, nil), "amd64", ""), on(other, "amd64", "v3"))
	reg := serveRegistry(t)
	ref := reg.push(t, p, top)
	cache := t.TempDir()
	var steps []string
	img, err := testOCI(cache).Pull(t.Context(), ref, func(s Step) {
		if !slices.Contains(steps, s.Text) {
			steps = append(steps, s.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bin/ 5 755 0:0 ", "etc/ 5 700 0:0 ", "opt/ 5 755 0:0 ",
		"bin/bash 0 4755 7:8 bin/shbin/sh security.capability=cap\x00x", "bin/sh 1 4755 7:8 bin/bash", "etc/b 0 0 0:0 etc/betc/bet",
		"opt/\xff\xfe 0 600 0:0 opt/\xff\xfeopt/\xff\xfe",
	}
	if got := tree(t, img); !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if img.Distro != "test" || img.Name != ref.String() || img.Config.User != "1000" || img.Config.Cmd[0] != "sh" {
		t.Errorf("got %+v", img)
	}
	if !slices.Equal(steps, []string{"asking " + reg.host(), "downloading layers", "checking the layers", "packing"}) &&
		!slices.Equal(steps, []string{"asking " + reg.host(), "downloading layers", "packing"}) {
		t.Errorf("steps %q", steps)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "images", "partial", "*")); len(left) != 0 {
		t.Errorf("left %q", left)
	}
	// Again: one question, no layer, the same bytes.
	reg.setSpoil(nil)
	again, err := testOCI(cache).Pull(t.Context(), ref, nil)
	if err != nil || again.ID != img.ID || again.Config.User != "1000" {
		t.Errorf("got %+v, %v", again, err)
	}
	for _, path := range reg.got {
		if strings.Contains(path, "/blobs/") {
			t.Errorf("asked for %s", path)
		}
	}
	// By digest, without the registry; and the tag, with a note.
	byDigest := Ref{Source: "oci", Version: reg.host() + "/os/test@" + top.Digest.String(), Insecure: true}
	if _, err := testOCI(cache).Pull(t.Context(), byDigest, nil); err != nil {
		t.Error(err)
	}
	reg.Close()
	if got, err := testOCI(cache).Pull(t.Context(), byDigest, nil); err != nil || got.ID != img.ID {
		t.Errorf("got %+v, %v", got, err)
	}
	var note string
	got, err := testOCI(cache).Pull(t.Context(), ref, func(s Step) { note = s.Text })
	if err != nil || got.ID != img.ID || !strings.Contains(note, "using the image of") {
		t.Errorf("got %+v, %v, note %q", got, err, note)
	}
	if _, err := testOCI(t.TempDir()).Pull(t.Context(), ref, nil); err == nil || !strings.Contains(hint.Of(err), "network") {
		t.Errorf("got %v, hint %q", err, hint.Of(err))
	}
}

func TestOCIResumes(t *testing.T) {
	p := newParts()
	layers := [][]byte{baseLayer(t), makeTar(t, tar.Header{Name: "x"})}
	top := p.image(t, "amd64", layers, nil)
	reg := serveRegistry(t)
	ref := reg.push(t, p, top)
	var first, second string
	for d, data := range p.blobs {
		if bytes.HasPrefix(data, []byte("\x1f\x8b")) {
			first = d
		} else if bytes.HasPrefix(data, []byte("\x28\xb5\x2f\xfd")) {
			second = d
		}
	}
	reg.setSpoil(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, second) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	cache := t.TempDir()
	if _, err := testOCI(cache).Pull(t.Context(), ref, nil); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Fatalf("got %v", err)
	}
	reg.setSpoil(nil)
	if _, err := testOCI(cache).Pull(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	for _, path := range reg.got {
		if strings.HasSuffix(path, first) {
			t.Error("the first layer was downloaded twice")
		}
	}
}

// TestOCILies has one way for each in which a registry can lie or refuse.
func TestOCILies(t *testing.T) {
	good := [][]byte{baseLayer(t)}
	plain := func(arch string, layers [][]byte, edit func(*v1.ConfigFile)) func(*parts) v1.Descriptor {
		return func(p *parts) v1.Descriptor { return p.image(t, arch, layers, edit) }
	}
	replace := func(part string, answer func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, part) {
				return false
			}
			answer(w)
			return true
		}
	}
	status := func(code int, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"no"}]}`, text)
		}
	}
	redirect := func(to string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.Header().Set("Location", to); w.WriteHeader(http.StatusFound) }
	}
	var now *parts // of the test that runs
	ofLayer := func(answer func(w http.ResponseWriter, real []byte)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			real := now.blobs[path.Base(r.URL.Path)]
			if len(real) == 0 || real[0] == '{' { // a manifest, or the configuration
				return false
			}
			answer(w, real)
			return true
		}
	}
	tests := []struct {
		name   string
		build  func(*parts) v1.Descriptor
		spoil  func(http.ResponseWriter, *http.Request) bool
		want   string
		advice string
	}{
		{"wrong configuration", plain("amd64", good, nil), replace("/blobs/", func(w http.ResponseWriter) { io.WriteString(w, "x") }), "configuration: error verifying sha256 checksum", ""},
		{"wrong layer", plain("amd64", good, nil), ofLayer(func(w http.ResponseWriter, real []byte) {
			w.Write(append([]byte("x"), real[1:]...))
		}), "layer 1 of 1: error verifying sha256 checksum", ""},
		{"short layer", plain("amd64", good, nil), ofLayer(func(w http.ResponseWriter, real []byte) { w.Write(real[1:]) }), "layer 1 of 1: error verifying sha256 checksum", ""},
		{"cut layer", plain("amd64", good, nil), ofLayer(func(w http.ResponseWriter, real []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(real)))
			w.Write(real[:len(real)/2])
		}), "layer 1 of 1: unexpected EOF", ""},
		{"wrong diff", plain("amd64", good, func(c *v1.ConfigFile) { c.RootFS.DiffIDs[0] = digestOf(nil) }), nil, "as the image says", "do not use"},
		{"missing diff", plain("amd64", good, func(c *v1.ConfigFile) { c.RootFS.DiffIDs = nil }), nil, "1 layers, but its configuration names 0", ""},
		{"wrong architecture", plain("riscv64", good, nil), nil, "nothing for linux/amd64", "linux/riscv64"},
		{"lying index", func(p *parts) v1.Descriptor {
			return p.index(t, on(p.image(t, "arm64", good, nil), "amd64", ""))
		}, nil, "nothing for linux/amd64", "linux/arm64"},
		{"no platform", func(p *parts) v1.Descriptor {
			a := p.image(t, "arm64", good, nil)
			return p.index(t, on(a, "arm64", "v8"), on(a, "s390x", ""), on(a, "unknown", ""))
		}, nil, "nothing for linux/amd64", "it is for linux/arm64/v8, linux/s390x"},
		{"windows", plain("amd64", good, func(c *v1.ConfigFile) { c.OS = "windows" }), nil, "nothing for linux/amd64", "windows/amd64"},
		{"no tar", plain("amd64", [][]byte{[]byte("text")}, nil), nil, "is not a tar archive", ""},
		{"no shell", plain("amd64", [][]byte{makeTar(t, tar.Header{Name: "app"})}, nil), nil, "neither /sbin/init nor a shell", "whole distribution"},
		{"block device", plain("amd64", [][]byte{makeTar(t, tar.Header{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 8})}, nil), nil, "block device 8:0", "whole distribution"},
		{"not found", plain("amd64", good, nil), replace("/manifests/", status(404, "MANIFEST_UNKNOWN")), "has no such image", "check the repository"},
		{"unauthorized", plain("amd64", good, nil), replace("/manifests/", status(401, "UNAUTHORIZED")), "does not let you", "docker login"},
		{"too many", plain("amd64", good, nil), replace("/manifests/", status(429, "TOOMANYREQUESTS")), "too many requests", "wait"},
		{"no manifest", plain("amd64", good, nil), replace("/manifests/", func(w http.ResponseWriter) { io.WriteString(w, "{}") }), "neither an image's nor an index", ""},
		{"redirect to http", plain("amd64", good, nil), replace("/blobs/", redirect("http://192.0.2.1/x")), "will not speak plain http", "https"},
		{"redirect to file", plain("amd64", good, nil), replace("/blobs/", redirect("file:///etc/passwd")), "will not speak", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg, p := serveRegistry(t), newParts()
			ref := reg.push(t, p, tt.build(p))
			now = p
			reg.setSpoil(tt.spoil)
			cache := t.TempDir()
			_, err := testOCI(cache).Pull(t.Context(), ref, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if !strings.Contains(hint.Of(err), tt.advice) {
				t.Errorf("got hint %q, want one with %q", hint.Of(err), tt.advice)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "images", "blobs", "*")); len(left) != 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

func TestOCIBomb(t *testing.T) {
	big := bytes.Repeat([]byte{0}, 4<<20)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "bin/sh", Typeflag: tar.TypeReg, Size: int64(len(big))})
	w.Write(big)
	w.Close()
	reg, p := serveRegistry(t), newParts()
	ref := reg.push(t, p, p.image(t, "amd64", [][]byte{b.Bytes()}, nil))
	o := testOCI(t.TempDir())
	o.MaxBytes = 1 << 20
	var le *rootfs.LimitError
	if _, err := o.Pull(t.Context(), ref, nil); !errors.As(err, &le) {
		t.Errorf("got %v, want a limit", err)
	}
}

func TestOCICanBeWrong(t *testing.T) {
	for _, text := range []string{"oci:", "oci:UPPER/x", "oci:x:y:z", "oci:x@sha256:12"} {
		if ref, err := ParseRef(text); err == nil || !strings.Contains(hint.Of(err), "oci:REGISTRY") {
			t.Errorf("%s: got %v, %v", text, ref, err)
		}
	}
	ref, err := ParseRef("oci:docker.io/library/debian:13")
	if err != nil || ref.String() != "oci:docker.io/library/debian:13" {
		t.Errorf("got %v, %v", ref, err)
	}
	if (&OCI{}).Arch == runtime.GOARCH {
		t.Error("the zero value is for the host")
	}
}
