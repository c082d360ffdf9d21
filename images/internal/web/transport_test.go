package web

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
)

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost:5000": true, "127.0.0.1": true, "127.1.2.3:80": true, "[::1]:5000": true, "localhost": true,
		"10.0.0.1:5000": false, "registry.local:5000": false, "localhost.example": false, "192.168.1.1": false, "": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: got %v", host, got)
		}
	}
}

// TestInsecureStaysHere checks that --insecure applies only to this host, whatever names and
// redirects say.
func TestInsecureStaysHere(t *testing.T) {
	tr := NewTransport("127.0.0.1:1", true)
	defer tr.Close()
	for url, want := range map[string]*http.Transport{
		"http://127.0.0.1:1/v2/": tr.loose, "https://localhost/x": tr.loose, "http://[::1]:80/x": tr.loose,
		"https://192.0.2.1/x": tr.base, "http://192.0.2.1/x": nil, "http://localhost.example/x": nil, "ftp://127.0.0.1/x": nil, "file:///x": nil,
	} {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tr.choose(r)
		if got != want || want == nil && !errors.As(err, new(*InsecureError)) {
			t.Errorf("%s: got %p, %v", url, got, err)
		}
	}
	if tr.base.TLSClientConfig != nil && tr.base.TLSClientConfig.InsecureSkipVerify {
		t.Error("other hosts' certificates are not checked either")
	}
	// A name that resolves to another host.
	start := time.Now()
	c, err := tr.loose.DialContext(t.Context(), "tcp", "192.0.2.1:80")
	if err == nil {
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1:80 is not on this host") || !strings.Contains(hint.Of(err), "localhost") {
		t.Errorf("got %v, hint %q after %v", err, hint.Of(err), time.Since(start))
	}
}
