package images

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lsub/lsub/hint"
)

// TestDebianLies has something between the host and Debian's mirrors, a proxy
// on loopback, that answers with package lists of its own.
func TestDebianLies(t *testing.T) {
	needBootstrap(t)
	strangers, err := os.ReadFile(filepath.Join("testdata", "debian", "InRelease")) // whole, but signed with a key of nobody's
	if err != nil {
		t.Fatal(err)
	}
	text := string(strangers)
	unsigned := text[strings.Index(text, "Origin:"):strings.Index(text, "-----BEGIN PGP SIGNATURE")]
	for name, tt := range map[string]struct{ release, want, advice string }{
		"another key":  {text, "the packages cannot be verified: ", "debian-archive-keyring"},
		"changed":      {strings.Replace(text, "Label: Debian", "Label: Dabian", 1), "the packages cannot be ", ""},
		"no signature": {unsigned, "the packages cannot be ", ""},
		"a login page": {"<html>log in first</html>", "the packages cannot be ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/InRelease") {
					t.Errorf("asked for %s", r.URL.Path)
					http.NotFound(w, r)
					return
				}
				asked.Add(1)
				fmt.Fprint(w, tt.release)
			}))
			defer proxy.Close()
			t.Setenv("http_proxy", proxy.URL)
			t.Setenv("no_proxy", "")
			cache := t.TempDir()
			_, err := (&Debian{CacheDir: cache}).Pull(t.Context(), Ref{Source: "debian", Version: "trixie"}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(hint.Of(err), tt.advice) || hint.Of(err) == "" {
				t.Errorf("got %v, hint %q", err, hint.Of(err))
			}
			if asked.Load() == 0 {
				t.Error("nobody asked for the lists: apt has a proxy of its own here")
			}
			for _, dir := range []string{filepath.Join(cache, "images", "blobs", "*"), filepath.Join(cache, "images", "*.json")} {
				if left, _ := filepath.Glob(dir); len(left) > 0 {
					t.Errorf("left %q", left)
				}
			}
		})
	}
}
