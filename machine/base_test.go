package machine

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestFetchBase(t *testing.T) {
	served := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served++; r.URL.Path != "/base.yaml" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte("cpus: 2\n"))
	}))
	defer server.Close()
	cache := t.TempDir()
	sum := digest([]byte("cpus: 2\n"))
	for range 2 {
		data, err := fetchBase(server.Client(), cache, server.URL+"/base.yaml", sum)
		if err != nil || string(data) != "cpus: 2\n" {
			t.Fatal(data, err)
		}
	}
	if served != 1 {
		t.Errorf("the file was asked for %d times", served)
	}
	if err := os.WriteFile(cache+"/"+sum, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := fetchBase(server.Client(), cache, server.URL+"/base.yaml", sum); err != nil || string(data) != "cpus: 2\n" {
		t.Errorf("a cache that was changed: %q, %v", data, err)
	}
	if _, err := fetchBase(server.Client(), cache, server.URL+"/base.yaml", strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), sum) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := fetchBase(server.Client(), cache, server.URL+"/other", sum[:63]+"x"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("no file: %v", err)
	}
}
