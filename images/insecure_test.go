package images

import (
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lsub/lsub/hint"
)

// serveSelfSigned serves what is in a registry over https, with a certificate
// that nobody vouches for.
func serveSelfSigned(t *testing.T, reg *testRegistry) (host string) {
	t.Helper()
	s := httptest.NewUnstartedServer(reg.Config.Handler)
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://")
}

// TestInsecure has registries on this host without https, and with a
// certificate of their own: they are used only where the user allows that.
func TestInsecure(t *testing.T) {
	p, reg := newParts(), serveRegistry(t)
	reg.push(t, p, p.image(t, "amd64", [][]byte{baseLayer(t)}, nil))
	for name, tt := range map[string]struct{ host, want string }{
		"plain http":  {reg.host(), "speaks plain http, not https"},
		"self-signed": {serveSelfSigned(t, reg), "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			ref := Ref{Source: "oci", Version: tt.host + "/os/test:latest"}
			says := func(what string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(hint.Of(err), "--insecure") {
					t.Errorf("%s: got %v, hint %q", what, err, hint.Of(err))
				}
			}
			write := func(w io.Writer) error { _, err := w.Write(goodTar(t)); return err }
			_, err := testOCI(t.TempDir()).Pull(t.Context(), ref, nil)
			says("pull", err)
			says("push", Push(t.Context(), ref, t.TempDir(), outgoing, nil, write))

			if ref, err = ref.AllowInsecure(); err != nil {
				t.Fatal(err)
			}
			cache := t.TempDir()
			img, err := testOCI(cache).Pull(t.Context(), ref, nil)
			if err != nil {
				t.Fatal(err)
			}
			tree(t, img)
			if err := Push(t.Context(), ref, t.TempDir(), outgoing, nil, write); err != nil {
				t.Error(err)
			}
			// What is in the cache does not come in the place of an answer that is refused.
			ref.Insecure = false
			_, err = testOCI(cache).Pull(t.Context(), ref, nil)
			says("pull with a cache", err)
		})
	}
}

// A registry that is gone says the same with and without --insecure, and the
// cache serves.
func TestInsecureGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, insecure := range []bool{false, true} {
		ref := Ref{Source: "oci", Version: l.Addr().String() + "/os/test", Insecure: insecure}
		_, err := testOCI(t.TempDir()).Pull(t.Context(), ref, nil)
		if err == nil || !strings.Contains(err.Error(), "cannot be reached") || strings.Contains(err.Error(), "was not tried") {
			t.Errorf("insecure %v: got %v", insecure, err)
		}
	}
}

func TestAllowInsecure(t *testing.T) {
	for text, want := range map[string]string{
		"oci:localhost:5000/x": "", "oci:127.0.0.1/x": "", "oci:127.9.9.9:1/x@sha256:" + strings.Repeat("0", 64): "", "oci:[::1]:5000/x:1": "",
		"oci:debian":                   "index.docker.io is none",
		"oci:registry.example/x":       "registry.example is none",
		"oci:localhost.example:5000/x": "localhost.example:5000 is none",
		"oci:127.0.0.1.example:5000/x": "127.0.0.1.example:5000 is none",
		"oci:10.0.0.1:5000/x":          "10.0.0.1:5000 is none",
		"oci:0.0.0.0:5000/x":           "0.0.0.0:5000 is none",
		"oci:[2001:db8::1]:5000/x":     "[2001:db8::1]:5000 is none",
		"debian:trixie":                "is for a container image",
	} {
		ref, err := ParseRef(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ref.AllowInsecure()
		if want == "" && (err != nil || !got.Insecure || got.String() != text) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || hint.Of(err) == "") {
			t.Errorf("%s: got %v, hint %q", text, err, hint.Of(err))
		}
	}
}
