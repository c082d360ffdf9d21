package e2e

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// TestApache is how people meet this: install a server, and look at it with the
// host's browser.
func TestApache(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends apache2 </dev/null; echo hello >/var/www/html/hello; systemctl restart apache2")
	get := func(url string) (string, error) {
		c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := c.Get(url)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	for _, url := range []string{"http://localhost/hello", "http://127.0.0.1/hello", "http://[::1]/hello"} {
		within(t, quick, url, func() bool { s, err := get(url); return s == "hello\n" && err == nil })
	}
	within(t, quick, "lsub ports knows it", func() bool {
		p := h.portOf(t, "tcp", 80)
		return p != nil && p.Process == "apache2" && p.Connections >= 3
	})
	h.sh(t, "debian", "systemctl stop apache2")
	within(t, quick, "the port closes", func() bool { return !answers("127.0.0.1:80") })
	h.sh(t, "debian", "systemctl start apache2")
	within(t, quick, "it is back", func() bool { s, _ := get("http://localhost/hello"); return s == "hello\n" })
	h.ok(t, "stop", "debian")
	within(t, quick, "the port closes with the distro", func() bool { return !answers("127.0.0.1:80") })
}
