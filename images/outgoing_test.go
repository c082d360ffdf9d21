package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/ulikunitz/xz"

	"github.com/lsub/lsub/hint"
)

// What is compressed in blocks reads as one, whatever its length.
func TestCompress(t *testing.T) {
	noise := make([]byte, 1<<20)
	rnd := rand.NewChaCha8([32]byte{})
	rnd.Read(noise)
	big := bytes.Repeat(append(noise[:100<<10:100<<10], make([]byte, 1<<20)...), 8) // more than one block, for each format
	for _, f := range []Format{FormatTar, FormatTarGzip, FormatTarXz, FormatTarZstd} {
		for _, plain := range [][]byte{nil, []byte("x"), noise, big} {
			var packed bytes.Buffer
			err := Compress(t.Context(), &packed, f, func(w io.Writer) error {
				for piece := range slices.Chunk(plain, 300_001) {
					if _, err := w.Write(piece); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if f != FormatTar && len(plain) == len(big) && packed.Len() > len(big)/2 {
				t.Errorf("%s: %d bytes of %d", f, packed.Len(), len(big))
			}
			if len(plain) == 0 && f == FormatTar {
				continue
			}
			r, err := decompress(&packed)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s: %d bytes come back of %d: %v", f, len(got), len(plain), err)
			}
		}
	}
}

type failingWriter struct{ error }

func (d failingWriter) Write([]byte) (int, error) { return 0, d.error }

func TestCompressFails(t *testing.T) {
	full := errors.New("no space left")
	for _, f := range []Format{FormatTarGzip, FormatTarXz, FormatTarZstd} {
		err := Compress(t.Context(), failingWriter{full}, f, func(w io.Writer) error {
			_, err := io.CopyN(w, rand.NewChaCha8([32]byte{}), 9<<20)
			return err
		})
		if !errors.Is(err, full) {
			t.Errorf("%s: %v", f, err)
		}
	}
	if err := Compress(t.Context(), io.Discard, "zip", func(io.Writer) error { return nil }); err == nil {
		t.Error("zip is taken")
	}
}

// What nobody wants any more is not compressed, whether the archive breaks off
// or the user does.
func TestCompressStops(t *testing.T) {
	broken := errors.New("the VM is gone")
	for _, f := range []Format{FormatTar, FormatTarGzip, FormatTarXz, FormatTarZstd} {
		var packed countedWriter
		err := Compress(t.Context(), &packed, f, func(w io.Writer) error {
			w.Write(make([]byte, 100<<10))
			return broken
		})
		if err != broken {
			t.Errorf("%s: %v", f, err)
		}
		if f != FormatTar && packed.n > 0 {
			t.Errorf("%s: %d bytes were compressed for nobody", f, packed.n)
		}

		ctx, cancel := context.WithCancel(t.Context())
		noise := rand.NewChaCha8([32]byte{})
		err = Compress(ctx, &packed, f, func(w io.Writer) error {
			for {
				if _, err := io.CopyN(w, noise, 1<<20); err != nil {
					return err
				}
				cancel() // what is under way, waits for no block
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", f, err)
		}

		// While the last block is compressed.
		ctx, cancel = context.WithCancel(t.Context())
		err = Compress(ctx, &packed, f, func(w io.Writer) error {
			_, err := io.CopyN(w, noise, 1<<19)
			cancel()
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// The blocks that are under way are given up, too.
func TestCompressGivesBlocksUp(t *testing.T) {
	b := newBlockWriter(io.Discard, 1<<20, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
	b.fail(errAborted)
	if err := b.pack(io.Discard, make([]byte, 1<<20)); err != errAborted {
		t.Errorf("a block was compressed: %v", err)
	}
	if err := b.Close(); err != errAborted {
		t.Error(err)
	}
}

type countedWriter struct{ n int }

func (c *countedWriter) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]Format{
		"a.tar": FormatTar, "/x.y/A.TAR.GZ": FormatTarGzip, "a.tgz": FormatTarGzip, "b.wsl": FormatTarGzip, "c.tar.xz": FormatTarXz,
		"d.tar.zst": FormatTarZstd, "e": "", "f.zip": "", "dir.tar/x": "",
	} {
		if got := FormatOf(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// pushRef names an image to put into a registry of the test's.
func pushRef(t *testing.T, reg *testRegistry) Ref {
	t.Helper()
	ref, err := PushRef(reg.host() + "/os/mine:1")
	if err == nil {
		ref, err = ref.AllowInsecure()
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

var outgoing = About{Name: "My_Debian", Arch: runtime.GOARCH, Created: time.Unix(1.7e9, 0).UTC(), Version: "1"}

// The three ways out of lsub lead back in, and to the same files.
func TestOutgoing(t *testing.T) {
	plain := goodTar(t)
	write := func(w io.Writer) error {
		_, err := w.Write(plain)
		return err
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if err := LayoutDir(dir, outgoing, write); err != nil {
		t.Fatal(err)
	}
	checkLayout(t, dir)
	if err := LayoutDir(dir, outgoing, write); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	archive := filepath.Join(t.TempDir(), "layout.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(LayoutArchive(f, outgoing, write), f.Close()); err != nil {
		t.Fatal(err)
	}
	reg := serveRegistry(t)
	ref := pushRef(t, reg)
	cache := t.TempDir()
	var steps []string
	if err := Push(t.Context(), ref, cache, outgoing, func(s Step) { steps = append(steps, s.Text) }, write); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(steps, func(s string) bool { return strings.HasPrefix(s, "pushing to 127.0.0.1:") }) {
		t.Errorf("progress: %q", steps)
	}
	if left, _ := os.ReadDir(cache); len(left) > 0 {
		t.Errorf("%d files stay in the cache", len(left))
	}

	var want []string
	for _, pull := range []struct {
		src Source
		ref Ref
	}{
		{&Tarball{CacheDir: t.TempDir()}, FileRef(dir)}, {&Tarball{CacheDir: t.TempDir()}, FileRef(archive)}, {&OCI{CacheDir: t.TempDir()}, ref},
	} {
		img, err := pull.src.Pull(t.Context(), pull.ref, nil)
		if err != nil {
			t.Fatalf("%s: %v", pull.ref, err)
		}
		if !slices.Equal(img.Config.Cmd, []string{"/bin/sh"}) || !slices.Equal(img.Config.Env, []string{distroPath}) {
			t.Errorf("%s: configuration %+v", pull.ref, img.Config)
		}
		got := tree(t, img)
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("%s holds %q, the directory %q", pull.ref, got, want)
		}
	}
}

// checkLayout has go-containerregistry check a layout.
func checkLayout(t *testing.T, dir string) {
	t.Helper()
	index, err := ocilayout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	if err != nil || len(blobs) != 3 {
		t.Errorf("%d blobs, %v; want a layer, a configuration and a manifest", len(blobs), err)
	}
	if _, err := os.Stat(filepath.Join(dir, layerName)); err == nil {
		t.Error("the layer stands under its working name")
	}
}

func TestOutgoingFails(t *testing.T) {
	gone := errors.New("the VM is gone")
	dir := filepath.Join(t.TempDir(), "layout")
	if err := LayoutDir(dir, outgoing, func(io.Writer) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("err = %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("half a directory stays")
	}
	_, err := PushRef("127.0.0.1:1/os/mine@sha256:" + strings.Repeat("0", 64))
	if err == nil || hint.Of(err) == "" {
		t.Errorf("to a digest: %v", err)
	}
	ref, err := PushRef("127.0.0.1:1/os/mine")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cache := t.TempDir()
	err = Push(ctx, ref, cache, outgoing, nil, func(w io.Writer) error { _, err := w.Write(goodTar(t)); return err })
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1 cannot be reached") {
		t.Errorf("to nobody: %v", err)
	}
	if left, _ := os.ReadDir(cache); len(left) > 0 {
		t.Errorf("%d files stay in the cache", len(left))
	}
}

// A registry that does not take it is asked before the distro is read.
func TestPushDenied(t *testing.T) {
	for code, want := range map[int]string{
		http.StatusForbidden: "does not let you push to os/mine", http.StatusNotFound: "has no repository os/mine",
		http.StatusInternalServerError: "is out of order",
	} {
		reg := serveRegistry(t)
		reg.spoil = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			w.WriteHeader(code)
			return true
		}
		err := Push(t.Context(), pushRef(t, reg), t.TempDir(), outgoing, nil, func(io.Writer) error {
			t.Errorf("%d: the distro is read", code)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), want) || hint.Of(err) == "" {
			t.Errorf("%d: %v, hint %q; want %q", code, err, hint.Of(err), want)
		}
	}
}

func TestTagFor(t *testing.T) {
	for distro, want := range map[string]string{"Debian": "debian:latest", "my_os-2.1": "my_os-2.1:latest", "a..b": "distro:latest", "a-": "distro:latest"} {
		if got := tagFor(distro); got != want {
			t.Errorf("%s: %s, want %s", distro, got, want)
		}
	}
}
