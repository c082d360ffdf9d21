package e2e

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocitar "github.com/google/go-containerregistry/pkg/v1/tarball"
)

// An image of a registry becomes a distro: two layers, of which the second takes
// a file of the first away.
func TestOCI(t *testing.T) {
	h := debian(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://") + "/tiny:1"
	upper := []entry{file("./etc/.wh.gone", ""), file("./etc/kept", "from above\n")}
	img := empty.Image
	for _, layer := range [][]entry{append(tinySystem(t), file("./etc/gone", "x"), file("./etc/kept", "from below\n")), upper} {
		b := archive(t, layer)
		l, err := ocitar.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
		if err == nil {
			img, err = mutate.AppendLayers(img, l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	push(t, address, img)
	h.ok(t, "install", "oci:"+address, "--name", "from-oci")
	if out := h.sh(t, "from-oci", "cat /etc/kept; ls /etc; id -u"); !strings.HasPrefix(out, "from above\n") || strings.Contains(out, "gone") || !strings.HasSuffix(out, "\n0") {
		t.Errorf("in the distro: %s", out)
	}
	h.ok(t, "unregister", "--yes", "from-oci")
	h.fails(t, 125, []string{"lsub: error: ", "lsub: hint: "}, "install", "oci:"+strings.Replace(address, "tiny", "none", 1))
}

func push(t *testing.T, address string, img v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(address)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func file(name, body string) entry {
	e := entry{body: body}
	e.Typeflag, e.Name, e.Mode, e.Size = '0', name, 0o644, int64(len(body))
	return e
}
