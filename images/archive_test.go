package images

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/rootfs"
)

// makeTar writes an archive; an entry without a type is a file with its name
// as content.
func makeTar(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		data := ""
		if h.Typeflag == 0 {
			h.Typeflag, data = tar.TypeReg, strings.Repeat(h.Name, 100)
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func goodTar(t testing.TB) []byte {
	return makeTar(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, tar.Header{Name: "./bin/sh"}, tar.Header{Name: "./etc/passwd"},
		tar.Header{Name: "./sbin", Linkname: "bin", Typeflag: tar.TypeSymlink})
}

func compressed(t testing.TB, data []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var compressors = map[string]func(io.Writer) (io.WriteCloser, error){
	"gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	"zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pullFile(t testing.TB, path string) (*Image, error) {
	t.Helper()
	return (&Tarball{}).Pull(t.Context(), FileRef(path), nil)
}

func TestTarball(t *testing.T) {
	plain := goodTar(t)
	sum := sha256.Sum256(plain)
	id := "sha256:" + hex.EncodeToString(sum[:])
	files := map[string][]byte{"plain": plain}
	for name, open := range compressors {
		files[name] = compressed(t, plain, open)
	}
	if bz, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.Command(bz, "-c")
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		files["bz2"] = out
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			img, err := pullFile(t, writeFile(t, "Alpine_3.x86_64.img", data)) // the name says nothing
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != id || img.Size != int64(len(plain)) || img.Distro != "alpine_3" {
				t.Errorf("got %+v", img)
			}
			r, err := img.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTarballErrors(t *testing.T) {
	good := goodTar(t)
	gz := compressed(t, good, compressors["gz"])
	end := bytes.LastIndex(good, bytes.Repeat([]byte{0}, 1024))
	one := func(h tar.Header) []byte { return makeTar(t, h) }
	flipped := bytes.Clone(gz)
	flipped[len(flipped)/2] ^= 0xff
	tests := []struct {
		name   string
		data   []byte
		want   string
		advice string
	}{
		{"empty file", nil, "is empty", "docker export"},
		{"text", []byte("hello\n"), "is not a tar archive", "docker export"},
		{"long text", bytes.Repeat([]byte("hello\n"), 1000), "is not a tar archive", "docker export"},
		{"zip", []byte("PK\x03\x04zip"), "is a zip archive", "docker export"},
		{"disk image", append([]byte("QFI\xfb"), make([]byte, 600)...), "is a qcow2 disk image", "docker export"},
		{"compressed text", compressed(t, []byte("hello"), compressors["gz"]), "is not a tar archive", "docker export"},
		{"cut in a file", good[:1024+100], "is cut off", "again"},
		{"cut between entries", good[:end], "is cut off", "again"},
		{"cut gz", gz[:len(gz)-30], "is cut off", "again"},
		{"cut xz", compressed(t, good, compressors["xz"])[:200], "is cut off", "again"},
		{"cut zst", compressed(t, good, compressors["zst"])[:100], "is cut off", "again"},
		{"damaged gz", flipped, "is damaged", "again"},
		{"no entries", makeTar(t), "archive is empty", "docker export"},
		{"no shell", one(tar.Header{Name: "etc/passwd"}), "neither /sbin/init nor a shell", "docker export"},
		{"one directory", one(tar.Header{Name: "debian/bin/sh"}), `that is in its directory "debian"`, "from inside"},
		{"docker save", one(tar.Header{Name: "manifest.json"}), "saved container image", "docker export"},
		{"dot dot", one(tar.Header{Name: "../x"}), `"../x" has ".." in its name`, "from inside"},
		{"absolute", one(tar.Header{Name: "/etc/x"}), `"/etc/x" has an absolute name`, "from inside"},
		{"hard link out", one(tar.Header{Name: "x", Linkname: "/etc/shadow", Typeflag: tar.TypeLink}), "out of the tree", "from inside"},
		{"disk", one(tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8}), "block device 8:0", "exclude=./dev"},
		{"goes on", append(bytes.Clone(good), bytes.Repeat([]byte("x"), maxTail+1)...), "goes on", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, "root.tar", tt.data)
			_, err := pullFile(t, path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
			if !strings.Contains(hint.Of(err), tt.advice) || tt.advice != "" && hint.Of(err) == "" {
				t.Errorf("got hint %q, want one with %q", hint.Of(err), tt.advice)
			}
		})
	}
	if _, err := pullFile(t, t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: got %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := pullFile(t, missing); !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), missing) != 1 {
		t.Errorf("missing: got %v", err)
	}
}

func TestTarballLimit(t *testing.T) {
	path := writeFile(t, "root.tar", goodTar(t))
	_, err := (&Tarball{MaxBytes: 1000}).Pull(t.Context(), FileRef(path), nil)
	var le *rootfs.LimitError
	if !errors.As(err, &le) {
		t.Errorf("got %v, want a limit", err)
	}
}

// TestEndlessArchives reads what never ends, as bombs do not.
func TestEndlessArchives(t *testing.T) {
	header := makeTar(t, tar.Header{Name: "pax_global_header", Typeflag: tar.TypeXGlobalHeader,
		PAXRecords: map[string]string{"comment": "again"}})
	header = header[:len(header)-1024]
	_, err := scan(t.Context(), &repeater{data: header}, "", &rootfs.State{MaxEntries: 1000})
	var le *rootfs.LimitError
	if !errors.As(err, &le) {
		t.Errorf("got %v, want a limit", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := scan(ctx, &repeater{data: header}, "", new(rootfs.State)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

type repeater struct {
	data []byte
	at   int
}

func (r *repeater) Read(p []byte) (int, error) {
	n := copy(p, r.data[r.at:])
	r.at = (r.at + n) % len(r.data)
	return n, nil
}

func TestTarballChanged(t *testing.T) {
	path := writeFile(t, "root.tar", goodTar(t))
	img, err := pullFile(t, path)
	if err != nil {
		t.Fatal(err)
	}
	other := makeTar(t, tar.Header{Name: "bin/sh"})
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("got %v", err)
	}
}

func TestOpenEndsWithContext(t *testing.T) {
	img, err := pullFile(t, writeFile(t, "root.tar", goodTar(t)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := img.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	// What was read ahead may still come, but not without an end.
	if _, err := io.Copy(io.Discard, &io.LimitedReader{R: r, N: 1 << 30}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDistroName(t *testing.T) {
	for path, want := range map[string]string{
		"/x/Fedora-42.x86_64.tar.xz": "fedora-42",
		"alpine.tar":                 "alpine",
		"Ubuntu 24.04.wsl":           "ubuntu-24.04",
		"root.tgz":                   "root",
		"-.tar":                      "distro",
		"ä/ö.tar":                    "distro",
	} {
		if got := distroName(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestParseRef(t *testing.T) {
	for name, want := range map[string]string{
		"debian": "debian:trixie", "Debian": "debian:trixie", "debian:12": "debian:bookworm",
		"debian:sid": "debian:sid", "debian:bullseye": "debian:bullseye",
	} {
		if ref, err := ParseRef(name); err != nil || ref.String() != want {
			t.Errorf("%s: got %v, %v", name, ref, err)
		}
	}
	for _, name := range []string{"", "debian:", "debian:potato", "fedora", "debian:../x"} {
		if ref, err := ParseRef(name); err == nil || !strings.Contains(hint.Of(err), "debian:trixie") {
			t.Errorf("%s: got %v, %v, hint %q", name, ref, err, hint.Of(err))
		}
	}
}

// FuzzTar takes any bytes for an archive: no panic, and only entries that
// package rootfs accepts.
func FuzzTar(f *testing.F) {
	f.Add(goodTar(f))
	for _, open := range compressors {
		f.Add(compressed(f, goodTar(f), open))
	}
	f.Add(makeTar(f, tar.Header{Name: "a", Linkname: "/", Typeflag: tar.TypeSymlink}, tar.Header{Name: "a/b"}))
	f.Add(makeTar(f, tar.Header{Name: "../x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		z, err := decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer z.Close()
		st := &rootfs.State{MaxBytes: 1 << 20, MaxEntries: 1000}
		s, err := scan(t.Context(), z, "", st)
		if err != nil {
			return
		}
		// It was accepted: read it again as an unpacker would.
		z, err = decompress(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		entries, tr := 0, tar.NewReader(z)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			entries++
			if rootfs.Skip(h) {
				continue
			}
			if name, err := rootfs.Clean(h.Name); err != nil || !filepath.IsLocal(name) {
				t.Fatalf("accepted entry %q: %v", h.Name, err)
			}
		}
		if entries != s.entries {
			t.Fatalf("%d entries the second time, %d the first", entries, s.entries)
		}
	})
}
