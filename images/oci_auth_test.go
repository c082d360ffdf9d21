package images

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestOCICredentials has a registry that wants a password, which docker's
// configuration has a helper for.
func TestOCICredentials(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the helper is a shell script")
	}
	p := newParts()
	top := p.image(t, "amd64", [][]byte{baseLayer(t)}, nil)
	reg := serveRegistry(t)
	ref := reg.push(t, p, top)
	reg.setSpoil(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "ada" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if _, err := testOCI(t.TempDir()).Pull(t.Context(), ref, nil); err == nil || !strings.Contains(err.Error(), "does not let you") {
		t.Errorf("without credentials: got %v", err)
	}
	dir := t.TempDir()
	helper := "#!/bin/sh\nread -r server\necho \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"ada\\\",\\\"Secret\\\":\\\"secret\\\"}\"\n"
	for name, text := range map[string]string{
		"config.json": fmt.Sprintf(`{"credHelpers":{%q:"lsubtest"}}`, reg.host()), "docker-credential-lsubtest": helper,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	if _, err := testOCI(t.TempDir()).Pull(t.Context(), ref, nil); err != nil {
		t.Errorf("with credentials: %v", err)
	}
}

// TestOCIBreaksOff has a registry that drops the first two connections for
// each layer.
func TestOCIBreaksOff(t *testing.T) {
	p := newParts()
	top := p.image(t, "amd64", [][]byte{baseLayer(t)}, nil)
	reg := serveRegistry(t)
	ref := reg.push(t, p, top)
	var mu sync.Mutex
	dropped := map[string]int{}
	drop := func(path string) bool {
		mu.Lock()
		defer mu.Unlock()
		dropped[path]++
		return dropped[path] <= 2
	}
	reg.setSpoil(func(w http.ResponseWriter, r *http.Request) bool {
		data := p.blobs["sha256:"+r.URL.Path[strings.LastIndex(r.URL.Path, ":")+1:]]
		if len(data) == 0 || data[0] == '{' || r.Method != http.MethodGet || !drop(r.URL.Path) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		panic(http.ErrAbortHandler)
	})
	if _, err := testOCI(t.TempDir()).Pull(t.Context(), ref, nil); err != nil {
		t.Error(err)
	}
	if len(dropped) != 1 {
		t.Errorf("dropped %v", dropped)
	}
}
