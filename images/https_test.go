package images

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/rootfs"
)

// serveWeb starts an https server with an authority of its own.
func serveWeb(t *testing.T, h http.HandlerFunc) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, roots
}

func testHTTPS(t *testing.T, roots *x509.CertPool) *HTTPS {
	return &HTTPS{CacheDir: t.TempDir(), Roots: roots, wait: time.Millisecond}
}

func webRef(t *testing.T, address string, data []byte) Ref {
	t.Helper()
	ref, err := URLRef(address, dataDigest(data).Hex)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// quiet keeps what a server says of clients that go away out of the tests.
var quiet = log.New(io.Discard, "", 0)

// writePart puts data where a download into dir goes on.
func writePart(t *testing.T, dir string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "download"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHTTPS(t *testing.T) {
	plain := goodTar(t)
	packed := compressed(t, plain, compressors["xz"])
	asked := 0
	s, roots := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path == "/here" {
			http.Redirect(w, r, "/there/Fedora-42.x86_64.tar.xz", http.StatusFound)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(packed))
	})
	h := testHTTPS(t, roots)
	var last Step
	img, err := h.Pull(t.Context(), webRef(t, s.URL+"/here", packed), func(st Step) {
		if st.Text == "downloading" {
			last = st
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != dataDigest(plain).String() || img.Distro != "here" || img.Name != s.URL+"/here" {
		t.Errorf("got %+v", img)
	}
	if last.Done != int64(len(packed)) || last.Total != last.Done || !last.Bytes {
		t.Errorf("got step %+v, %d bytes", last, len(packed))
	}
	if got := tree(t, img); len(got) != 4 {
		t.Errorf("got %q", got)
	}
	s.Close() // what has the sum is there, whatever its address
	if again, err := h.Pull(t.Context(), webRef(t, "https://elsewhere.invalid/x.tar", packed), nil); err != nil || again.ID != img.ID || asked != 2 {
		t.Errorf("got %+v, %v, %d requests", again, err, asked)
	}
}

// TestHTTPSResumes has a server that breaks off, and then a lsub that does.
func TestHTTPSResumes(t *testing.T) {
	data := makeTar(t, file("bin/sh"), file(strings.Repeat("long", 20)))
	half := len(data) / 2
	var ranges []string
	var stop context.CancelFunc
	s, roots := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:half])
			if stop != nil {
				w.(http.Flusher).Flush()
				stop()
				<-r.Context().Done()
			}
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	ref := webRef(t, s.URL+"/x.tar", data)
	if _, err := testHTTPS(t, roots).Pull(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	if len(ranges) != 2 || !strings.HasPrefix(ranges[1], "bytes=") {
		t.Errorf("asked for %q", ranges)
	}
	ranges = nil
	ctx, cancel := context.WithCancel(t.Context())
	stop = cancel
	h := testHTTPS(t, roots)
	if _, err := h.Pull(ctx, ref, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := h.Pull(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	if len(ranges) != 2 {
		t.Errorf("asked for %q", ranges)
	}
}

// TestHTTPSOldPart has a part in the cache that is not of this file.
func TestHTTPSOldPart(t *testing.T) {
	data := goodTar(t)
	s, roots := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	for name, old := range map[string][]byte{"shorter": []byte("old"), "longer": bytes.Repeat([]byte("old"), len(data)), "whole": data} {
		h := testHTTPS(t, roots)
		ref := webRef(t, s.URL+"/x.tar", data)
		part := filepath.Join(h.CacheDir, "images", "partial", "url-"+ref.SHA256)
		writePart(t, part, old)
		if _, err := h.Pull(t.Context(), ref, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHTTPSLies has one way for each in which a server can lie or fail.
func TestHTTPSLies(t *testing.T) {
	good := goodTar(t)
	to := func(where string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Location", where); w.WriteHeader(302) }
	}
	give := func(data []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	text := []byte("text")
	gz := compressed(t, good, compressors["gz"])
	behind := makeTar(t, file("bin/sh"), sym("x", "/etc"), hard("y", "x/passwd"))
	out := makeTar(t, file("bin/sh"), hard("x", "../../etc/shadow"))
	bomb := compressed(t, makeTar(t, file("bin/sh"), tar.Header{Name: strings.Repeat("b", 90)}), compressors["gz"])
	tests := []struct {
		name         string
		serve        http.HandlerFunc
		data         []byte // whose sum is given
		want, advice string
	}{
		{"wrong sum", give(text), good, "not sha256:", "do not use"},
		{"cut, without saying so", func(w http.ResponseWriter, r *http.Request) { w.Write(good[:700]); w.(http.Flusher).Flush() }, good, "has the sum", ""},
		{"cut, with the sum of that", give(gz[:len(gz)-30]), gz[:len(gz)-30], "is cut off", "again"},
		{"breaks off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			panic(http.ErrAbortHandler)
		}, good, "cannot be reached", "kept for the next time"},
		{"wrong range", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-8/9")
			w.WriteHeader(206)
		}, good, "206", ""},
		{"no archive", give(text), text, "is not a tar archive", "docker export"},
		{"redirect to http", to("http://192.0.2.1/x"), good, "redirects to http://192.0.2.1, which is not https", "https"},
		{"redirect to file", to("file:///etc/passwd"), good, "redirects to file://", "https"},
		{"circle", to("/x.tar"), good, "redirects too often", ""},
		{"not found", status(404), good, "does not have it", "check the address"},
		{"out of order", status(503), good, "status 503", "later"},
		{"too large", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "99999999") }, good, "more than 1048576 bytes", ""},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, &repeater{data: good})
		}, good, "more than 1048576 bytes", ""},
		{"bomb", give(bomb), bomb, "holds more than 9000 bytes", ""},
		{"behind a link to nothing", give(behind), behind, "which the archive does not have", ""},
		{"hard link out", give(out), out, "out of the tree", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, roots := serveWeb(t, tt.serve)
			h := testHTTPS(t, roots)
			h.MaxDownload, h.MaxBytes = 1<<20, 9000
			_, err := h.Pull(t.Context(), webRef(t, s.URL+"/x.tar", tt.data), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(hint.Of(err), tt.advice) {
				t.Errorf("got %v, hint %q", err, hint.Of(err))
			}
			var le *rootfs.LimitError
			if tt.name == "bomb" && !errors.As(err, &le) {
				t.Errorf("got %v, want a limit", err)
			}
			if left, _ := filepath.Glob(filepath.Join(h.CacheDir, "images", "blobs", "*")); len(left) != 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

func TestHTTPSUntrusted(t *testing.T) {
	s, _ := serveWeb(t, func(http.ResponseWriter, *http.Request) {})
	_, err := testHTTPS(t, x509.NewCertPool()).Pull(t.Context(), webRef(t, s.URL+"/x.tar", nil), nil)
	if err == nil || !strings.Contains(hint.Of(err), "authority") {
		t.Errorf("got %v, hint %q", err, hint.Of(err))
	}
}

func TestURLRef(t *testing.T) {
	sum := strings.Repeat("aB", 32)
	for _, given := range []string{sum, "0x" + sum, "sha256:" + sum} {
		ref, err := URLRef("https://h/x.tar", given)
		if err != nil || ref.SHA256 != strings.ToLower(sum) || ref.String() != "https://h/x.tar" {
			t.Errorf("%s: got %+v, %v", given, ref, err)
		}
	}
	for _, bad := range []string{"http://h/x", "file:///x", "https://", "https://u:p@h/x", "ftp://h/x", "https://%zz"} {
		if ref, err := URLRef(bad, sum); err == nil {
			t.Errorf("%s: got %v", bad, ref)
		}
	}
	for _, bad := range []string{"", "12", sum + "0", strings.Repeat("x", 64)} {
		if _, err := URLRef("https://h/x", bad); err == nil {
			t.Errorf("sum %q was taken", bad)
		}
	}
}
