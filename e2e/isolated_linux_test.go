package e2e

import (
	"archive/tar"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// page returns a web server's page, or the error.
func page(url string) string {
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// webServer starts a web server on the host. Its page says so.
func webServer(t *testing.T, at string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "host") })}}
	s.Start()
	t.Cleanup(s.Close)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// TestIsolated has two distros with their own networks beside one in the VM's network. All
// listen on port 80.
func TestIsolated(t *testing.T) {
	h := fresh(t)
	profile := filepath.Join(h.dir, "home", "profiles", "default", "profile.yaml")
	if err := os.MkdirAll(filepath.Dir(profile), 0o700); err != nil {
		t.Fatal(err)
	}
	port := webServer(t, "127.0.0.1:0")
	err := os.WriteFile(profile, fmt.Appendf(nil, `
ports:
  next_free: true
  forwards: [18300 -> api:80]
  reverse: ["web:15432 -> %s"]
distros:
  web: {network: isolated}
  api: {network: isolated}
`, port), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	echo := program(t, "./testdata/echo")
	tiny := tarball(t, "tar", archive(t, append(tinySystem(t),
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "./bin/echoes", Mode: 0o755, Size: int64(len(echo))}, string(echo)})))
	for _, name := range []string{"web", "api", "plain"} {
		h.ok(t, "install", "--name", name, "--from-file", tiny)
		h.sh(t, name, "mkdir /www; echo "+name+" >/www/index.html; busybox httpd -p 80 -h /www; busybox httpd -p 127.0.0.1:8"+fmt.Sprint(len(name))+" -h /www")
	}
	// hostPort returns the host's address for a port of a distro.
	hostPort := func(distro, network string, n int) string {
		for _, p := range h.ports(t) {
			if p.Distro == distro && p.Network == network && strings.HasSuffix(p.Guest, fmt.Sprintf(":%d", n)) && p.State == "open" {
				return p.Host[0]
			}
		}
		return ""
	}
	t.Run("forwarded", func(t *testing.T) {
		seen := map[string]bool{}
		for _, name := range []string{"web", "api", "plain"} {
			within(t, quick, name+"'s port 80", func() bool { return hostPort(name, "tcp", 80) != "" })
			at := hostPort(name, "tcp", 80)
			if got := page("http://" + at); got != name || seen[at] {
				t.Errorf("%s at %s: %s", name, at, got)
			}
			seen[at] = true
		}
		if !seen["127.0.0.1:18300"] {
			t.Errorf("the rule's port is not among %v", seen)
		}
		h.sh(t, "web", "busybox httpd -p [::1]:18320 -h /www")
		within(t, quick, "a port on ::1", func() bool { return page("http://[::1]:18320") == "web" })
		for _, name := range []string{"web", "plain"} {
			s := h.serve(t, name, "/bin/echoes", "udp", ":18310")
			s.line()
			within(t, quick, "a UDP port of "+name, func() bool { return hostPort(name, "udp", 18310) != "" })
			c, err := net.Dial("udp", hostPort(name, "udp", 18310))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "packet")
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			b := make([]byte, 64)
			if n, err := c.Read(b); string(b[:n]) != "packet" {
				t.Errorf("UDP of %s: %q, %v", name, b[:n], err)
			}
			s.in.Close()
			within(t, quick, "the UDP port of "+name+" is gone", func() bool { return hostPort(name, "udp", 18310) == "" })
		}
	})
	t.Run("connections", func(t *testing.T) {
		s := h.serve(t, "web", "/bin/echoes", "tcp", ":18330")
		s.line()
		for _, at := range both(18330) {
			within(t, quick, at+" opens", func() bool { return answers(at) })
		}
		connections(t, s, both(18330), byTheAgent)
		t.Run("64 MiB each way at once", func(t *testing.T) { muchBothWays(t, dial(t, "tcp", both(18330)[1]), 64<<20) })
		t.Run("100 at once", func(t *testing.T) { manyConnections(t, both(18330), 100) })
	})
	// look runs commands in a distro and compares the last line of each.
	look := func(t *testing.T, distro string, wants ...string) {
		t.Helper()
		var script strings.Builder
		for i := 0; i < len(wants); i += 2 {
			fmt.Fprintf(&script, "x=$(%s 2>&1) || x=\"$x (failed)\"; echo $x\n", wants[i])
		}
		lines := strings.Split(h.sh(t, distro, script.String()), "\n")
		for i := 0; i < len(wants); i += 2 {
			if !strings.Contains(lines[i/2], wants[i+1]) {
				t.Errorf("in %s: %s: %q, want %q", distro, wants[i], lines[i/2], wants[i+1])
			}
		}
	}
	const get = "wget -q -T 20 -O - http://"
	t.Run("reach", func(t *testing.T) {
		addr := strings.Fields(h.sh(t, "web", "busybox ip -4 -o addr show dev eth0"))[3]
		addr, _, _ = strings.Cut(addr, "/")
		look(t, "web",
			get+"api.lsub.internal", "api",
			get+"plain.lsub.internal", "plain",
			get+"web.lsub.internal", "web",
			get+"host.lsub.internal:"+port, "host",
			get+"127.0.0.1:15432", "host", // the profile's reverse rule
			"nslookup "+addr, "web.lsub.internal",
			"busybox ping -c 1 -W 20 api.lsub.internal", "1 packets received",
			"busybox hostname", "web",
			"cat /etc/resolv.conf", "nameserver "+addr[:strings.LastIndex(addr, ".")]+".1")
		look(t, "plain",
			get+"web.lsub.internal", "web",
			get+addr, "web",
			get+"api.lsub.internal", "api")
		for _, a := range hostAddresses() {
			look(t, "web", get+net.JoinHostPort(a, webServer(t, net.JoinHostPort(a, "0"))), "host")
			break
		}
	})
	t.Run("apart", func(t *testing.T) {
		look(t, "web",
			get+"127.0.0.1:85", "refused", // plain's
			get+"plain.lsub.internal:85", "refused",
			get+"127.0.0.1:83", "web",
			"cat /proc/net/tcp | grep -c ' 0A '", "2") // its second server, and the reverse rule's
		look(t, "plain",
			get+"127.0.0.1:83", "refused", // web's and api's
			get+"web.lsub.internal:83", "refused",
			get+"127.0.0.1:15432", "refused",
			get+"127.0.0.1:85", "plain")
	})
	t.Run("stops", func(t *testing.T) {
		const count = "busybox ip link | grep -c lsub; grep ^net_namespace /proc/slabinfo"
		namespaces := func() (links string, n int) {
			var name string
			out := h.sh(t, "plain", count)
			links, rest, _ := strings.Cut(out, "\n")
			fmt.Sscan(rest, &name, &n)
			return links, n
		}
		links, before := namespaces()
		if links != "2" {
			t.Errorf("%s links of distros, want 2", links)
		}
		address := func() string { return h.sh(t, "web", "busybox ip -4 -o addr show dev eth0") }
		first := address()
		h.ok(t, "stop", "web")
		within(t, quick, "its port is gone", func() bool { return hostPort("web", "tcp", 80) == "" })
		look(t, "plain", get+"web.lsub.internal", "bad address")
		start := time.Now()
		const times = 20
		for range times {
			h.ok(t, "start", "web")
			h.ok(t, "stop", "web")
		}
		t.Logf("%v for a start and a stop", (time.Since(start) / times).Round(time.Millisecond))
		if got := address(); got != first {
			t.Errorf("the address was %s and is %s", first, got)
		}
		within(t, time.Minute, "nothing is left", func() bool {
			links, n := namespaces()
			// The kernel counts its memory for namespaces, in slabs of some six.
			return links == "2" && n < before+times-1
		})
		look(t, "web", get+"api.lsub.internal", "api", get+"127.0.0.1:15432", "host")
		h.sh(t, "api", "busybox killall busybox")
		within(t, quick, "the rule's port waits", func() bool { return hostPort("api", "tcp", 80) == "" })
	})
}

// program builds a Go program for the guest.
func program(t *testing.T, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hostAddresses returns the host's IPv4 addresses that others can reach.
func hostAddresses() []string {
	var list []string
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	return list
}
