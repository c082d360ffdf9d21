package e2e

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Images of a WSL manifest and of a simplestreams server, both named in the profile, become
// distros by their short names. Once they are downloaded, this works without the server.
func TestOnline(t *testing.T) {
	h := fresh(t)
	plain := archive(t, tinySystem(t))
	files := map[string][]byte{}
	add := func(path, format string) (sum [32]byte) {
		data, err := os.ReadFile(tarball(t, format, plain))
		if err != nil {
			t.Fatal(err)
		}
		files[path] = data
		return sha256.Sum256(data)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if data, ok := files[r.URL.Path]; ok {
			w.Write(data)
			return
		}
		http.NotFound(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	field := "Amd64Url"
	if runtime.GOARCH == "arm64" {
		field = "Arm64Url"
	}
	files["/DistributionInfo.json"] = fmt.Appendf(nil, `{"ModernDistributions":{"MinuteLinux":[{"Name":"MinuteLinux-1","FriendlyName":"Minute Linux 1","Default":true,%q:{"Url":"%s/minute.wsl","Sha256":"0x%x"}}]}}`,
		field, server.URL, add("/minute.wsl", "gz"))
	files["/lxc/streams/v1/index.json"] = []byte(`{"index":{"images":{"datatype":"image-downloads","path":"streams/v1/images.json"}}}`)
	files["/lxc/streams/v1/images.json"] = fmt.Appendf(nil, `{"products":{"x":{"arch":%q,"os":"Wee","release":"3.22","versions":{"20261122":{"items":{"root.tar.xz":{"ftype":"root.tar.xz","path":"wee.tar.xz","sha256":"%x"}}}}}}}`,
		runtime.GOARCH, add("/lxc/wee.tar.xz", "xz"))

	ca := filepath.Join(h.dir, "ca.pem")
	folder := filepath.Join(h.dir, "home", "profiles", "default")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		ca:                                    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		filepath.Join(folder, "profile.yaml"): fmt.Sprintf("catalogues:\n- %[1]s/DistributionInfo.json\n- url: %[1]s/lxc\n  kind: simplestreams\n", server.URL),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.env = append(h.env, "SSL_CERT_FILE="+ca, "XDG_CACHE_HOME="+filepath.Join(h.dir, "cache"))

	list := h.ok(t, "list", "--online")
	for _, want := range []string{"\nminutelinux-1 ", "\nwee-3.22 ", "\ndebian:trixie "} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in the list:\n%s", want, list)
		}
	}
	if out := h.ok(t, "run", "minute", "--", "sh", "-c", "cat /etc/passwd; test -x /bin/busybox"); !strings.HasPrefix(out, "root:x:0:0") {
		t.Errorf("in minute: %s", out)
	}
	h.ok(t, "install", "--name", "mine", "wee:3.22")
	server.Close()
	h.ok(t, "install", "--name", "again", "wee")
	if out := h.ok(t, "run", "wee", "--", "id", "-u"); out != "0" { // of the existing distro
		t.Errorf("in wee: %s", out)
	}
	list = h.ok(t, "list", "-v")
	for _, want := range []string{"minutelinux-1@sha256:", "wee-3.22@20261122"} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in the list:\n%s", want, list)
		}
	}
	h.fails(t, 125, []string{`no image "minuet" is known`, `did you mean "minute"?`}, "install", "minuet")
}
