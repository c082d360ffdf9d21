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

// An image from a registry becomes a distro. It has two layers; the second one removes a file
// of the first.
func TestOCI(t *testing.T) {
	h := debian(t)
	address := serveRegistry(t) + "/tiny:1"
	upper := []entry{file("./etc/.wh.gone", ""), file("./etc/kept", "from above\n")}
	push(t, address, ociImage(t, v1.Config{}, append(tinySystem(t), file("./etc/gone", "x"), file("./etc/kept", "from below\n")), upper))
	h.fails(t, 125, []string{"speaks plain http", "--insecure"}, "install", "oci:"+address)
	h.ok(t, "install", "--insecure", "oci:"+address, "--name", "from-oci")
	if out := h.sh(t, "from-oci", "cat /etc/kept; ls /etc; id -u"); !strings.HasPrefix(out, "from above\n") || strings.Contains(out, "gone") || !strings.HasSuffix(out, "\n0") {
		t.Errorf("in the distro: %s", out)
	}
	h.ok(t, "unregister", "--yes", "from-oci")
	h.fails(t, 125, []string{"lsub: error: ", "has no such image", "lsub: hint: "}, "install", "--insecure", "oci:"+strings.Replace(address, "tiny", "none", 1))
}

// An image's user and environment apply to the distro's commands, even if /etc/passwd lacks
// the user.
func TestOCIUser(t *testing.T) {
	h := debian(t)
	address := serveRegistry(t) + "/app:1"
	push(t, address, ociImage(t, v1.Config{
		User: "65532:77", Env: []string{"PATH=/opt/app:/usr/bin:/bin", "APP_MODE=a b", "HOME=/nowhere"}, WorkingDir: "/tmp",
	}, append(tinySystem(t), executable("./opt/app/greet", "#!/bin/sh\necho hello from $0\n"))))
	h.ok(t, "install", "--insecure", "oci:"+address, "--name", "app")
	const who = "id -u; id -g; echo $APP_MODE, $HOME, $PATH; greet"
	const want = "65532\n77\na b, /, /opt/app:/usr/bin:/bin\nhello from /opt/app/greet"
	if out := h.ok(t, "exec", "app", "--", "sh", "-c", who); out != want {
		t.Errorf("in the distro: %q, want %q", out, want)
	}
	if out := h.ok(t, "-d", "app", who); out != want {
		t.Errorf("through the login shell: %q, want %q", out, want)
	}
	if out := h.ok(t, "exec", "-u", "root", "app", "--", "sh", "-c", "id -u; echo $HOME"); out != "0\n/root" {
		t.Errorf("as root: %q", out)
	}
	h.fails(t, 125, []string{`no user "65532" in the distro`}, "exec", "-u", "65532", "app", "--", "true")
	h.ok(t, "install", "--insecure", "oci:"+address, "--name", "app-root", "--user", "root")
	if out := h.ok(t, "exec", "app-root", "--", "id", "-u"); out != "0" {
		t.Errorf("with --user root: %q", out)
	}
	for _, name := range []string{"app", "app-root"} {
		h.ok(t, "unregister", "--yes", name)
	}
}

// serveRegistry serves a registry on loopback and returns its address.
func serveRegistry(t *testing.T) string {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// ociImage makes an image from layers, the lowest first.
func ociImage(t *testing.T, config v1.Config, layers ...[]entry) v1.Image {
	t.Helper()
	img := empty.Image
	for _, layer := range layers {
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
	cfg.OS, cfg.Architecture, cfg.Config = "linux", "amd64", config
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
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

func executable(name, body string) entry {
	e := file(name, body)
	e.Mode = 0o755
	return e
}
