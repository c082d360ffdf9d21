package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/netstack/guesttcp"
)

// containerSuites are the suites for the container tests, with Docker and its recommended
// packages in Debian, as far as the tests need them. Docker keeps its data in btrfs
// subvolumes in one, in overlays in the other.
var containerSuites = map[string]string{
	"bookworm": "docker.io,iptables,busybox-static,curl",
	"trixie":   "docker.io,docker-cli,iptables,busybox-static,curl," + podmanPackages,
}

// isolatedContainers is the distro with its own network.
const isolatedContainers = "containers-bookworm"

// podmanPackages are Podman, its dependencies, and other container tools.
const podmanPackages = "podman,netavark,uidmap,passt,kmod,systemd-container,bubblewrap"

// baseImage makes base.tar, an image to import. Nothing is pulled: containers can be tested
// without a registry.
const baseImage = `mkdir -p ~/base/bin ~/base/etc ~/base/usr/lib; cd ~
cp /bin/busybox base/bin/
for name in sh echo cat mkdir grep httpd ip id; do ln -s busybox base/bin/$name; done
touch base/etc/os-release base/usr/lib/os-release
tar -C base -c . >base.tar
`

// serve is a container's program: a web server that shows its user and limit. One container
// tests as much as possible, since each takes seconds of software emulation.
const serve = `sh -c 'mkdir -p /w; echo from a container of user $(id -u), limit $(cat /sys/fs/cgroup/memory.max) >/w/index.html; exec httpd -f -p 80 -h /w'`

// served is its page.
const served = "from a container of user 0, limit 67108864"

// askWeb requests the page in docker once the web server is up.
const askWeb = "curl -s --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:18480/"

// Container engines run in a distro: modules are loaded when needed. One of the distros has
// its own network, with the engine's bridge in it.
func TestContainers(t *testing.T) {
	h := debian(t)
	profile := filepath.Join(h.dir, "home", "profiles", "default", "profile.yaml")
	if err := os.WriteFile(profile, []byte("distros: {"+isolatedContainers+": {network: isolated}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(profile) })
	for suite, packages := range containerSuites {
		t.Run(suite, func(t *testing.T) {
			name := "containers-" + suite
			h.ok(t, "install", "--name", name, "debian:"+suite+"?include="+packages)
			h.sh(t, name, baseImage)
			const bridges = "ls -d /sys/class/net/*/bridge || true"
			before := h.sh(t, "debian", bridges)
			t.Run("docker", func(t *testing.T) { testDocker(t, h, name) })
			layout := filepath.Join(t.TempDir(), "layout.tar")
			t.Run("images", func(t *testing.T) { testImages(t, h, name, layout) })
			if suite == "bookworm" {
				if links := h.sh(t, "debian", bridges); links != before {
					t.Errorf("the VM's network has the bridges %q, and had %q", links, before)
				}
				t.Run("moved", func(t *testing.T) { testMoved(t, h, name) })
			}
			if strings.Contains(packages, podmanPackages) {
				if out := h.sh(t, name, "docker rm -f web >/dev/null; systemctl is-system-running --wait || systemctl --failed"); out != "running" {
					t.Errorf("is-system-running: %s", out)
				}
				h.sh(t, name, "useradd --create-home joe")
				h.ok(t, "exec", "-u", "joe", name, "--", "sh", "-ec", baseImage)
				t.Run("podman", func(t *testing.T) { testPodman(t, h, name, layout) })
				t.Run("nested", func(t *testing.T) { testNested(t, h, name) })
			}
			// With all that the engines have created: subvolumes, networks, mounts.
			h.ok(t, "unregister", "--yes", name)
			h.sh(t, "debian", "systemctl is-system-running --wait")
		})
	}
}

func testNested(t *testing.T, h *host, name string) {
	// modprobe in the distro, and loading by the kernel.
	h.sh(t, name, `modprobe dummy numdummies=0; lsmod | grep -w dummy
ip link add wg-test type wireguard; ip link del wg-test`)
	out := h.sh(t, name, `export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
systemd-nspawn -q --pipe -D ~/base /bin/echo in a container of nspawn
systemd-nspawn -q --pipe -D ~/base -U --private-network /bin/echo with users of its own
systemd-run -q --wait --pipe -p DynamicUser=yes -p PrivateTmp=yes -p ProtectSystem=strict -p MemoryMax=50M echo in a sandbox`)
	if want := "in a container of nspawn\nwith users of its own\nin a sandbox"; out != want {
		t.Errorf("got %s\nwant %s", out, want)
	}
	out = h.ok(t, "exec", "-u", "joe", name, "--", "sh", "-ec", `unshare -Ur id -u
bwrap --ro-bind / / --unshare-all --dev /dev --proc /proc --uid 0 id -u`)
	if out != "0\n0" {
		t.Errorf("user namespaces: %s", out)
	}
}

func testDocker(t *testing.T, h *host, name string) {
	out := h.sh(t, name, `cd; docker import base.tar base >/dev/null
docker info 2>/dev/null | grep -E '^ (Storage Driver: (btrfs|overlay2)|Cgroup Version: 2)$'
printf 'FROM base\nRUN ip -4 -o addr show eth0 | grep -o "inet 172.17" && echo built >/built\n' >Dockerfile
DOCKER_BUILDKIT=0 docker build -t built . 2>/dev/null | grep ^inet
docker run -d --name web --restart always --stop-timeout 1 --memory 64m -p 18480:80 built `+serve+` >/dev/null
`+askWeb)
	for _, want := range []string{"Storage Driver", "Cgroup Version", "inet 172.17\n" + served} {
		if !strings.Contains(out, want) {
			t.Errorf("docker does not say %q:\n%s", want, out)
		}
	}
	within(t, quick, "lsub ports knows it", func() bool {
		p := h.portOf(t, "tcp", 18480)
		return p != nil && p.State == "open" && p.Distro == name
	})
	// The first connection is as fast as later ones: it waits for no failed attempt.
	start := time.Now()
	s, err := httpGet("http://localhost:18480/")
	if took := time.Since(start); s != served+"\n" || err != nil || took > 2*time.Second {
		t.Errorf("after %v the host gets %q, %v", took, s, err)
	}
	if name != isolatedContainers { // that would be the agent's path
		testPublishedWay(t, h, name)
	}
}

// testPublishedWay checks that docker's rules for a published port do not disturb the fast
// path of a connection to it. The container cannot see its peer's address.
func testPublishedWay(t *testing.T, h *host, name string) {
	c, err := net.Dial("tcp", "127.0.0.1:18480")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.0\r\n") // more may come
	peer := ""
	within(t, quick, "docker has the connection", func() bool {
		peer = h.sh(t, name, "ss -Htn state established sport = :18480")
		return peer != ""
	})
	n, err := strconv.Atoi(peer[strings.LastIndex(peer, ":")+1:])
	if err != nil || n < guesttcp.FirstPort {
		t.Errorf("docker's connection: %s, %v", peer, err)
	}
}

// testImages makes distros from docker's saved images, in the format of its version, and from
// its exports. docker then runs such a distro's image, which is left in layout.
func testImages(t *testing.T, h *host, name, layout string) {
	docker := func(args ...string) string {
		t.Helper()
		r := h.run(append([]string{"exec", "-u", "root", name, "--", "docker"}, args...)...)
		if r.code != 0 {
			t.Fatalf("docker %q: exit %d, %s", args, r.code, r.err)
		}
		return r.out
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	if err := os.WriteFile(saved, []byte(docker("save", "built")), 0o600); err != nil {
		t.Fatal(err)
	}
	h.ok(t, "install", "--from-file", saved, "--name", "saved")
	defer h.run("unregister", "--yes", "saved")
	if out := h.sh(t, "saved", "cat /built; id -u"); out != "built\n0" {
		t.Errorf("in the image that docker saved: %s", out)
	}
	if r := h.runWith(strings.NewReader(docker("export", "web")), "import", "exported", "-"); r.code != 0 {
		t.Fatal(r)
	}
	defer h.run("unregister", "--yes", "exported")
	if out := h.sh(t, "exported", "cat /w/index.html /built"); out != served+"\nbuilt" {
		t.Errorf("in the container that docker exported: %s", out)
	}
	h.sh(t, "saved", "echo changed in a distro >>/built")
	h.ok(t, "export", "--format", "oci", "saved", layout)
	runLayout(t, h, name, "root", layout, "docker load -q")
}

// runLayout has a container engine load a distro's image and run it.
func runLayout(t *testing.T, h *host, name, user, layout, load string) {
	t.Helper()
	f, err := os.Open(layout)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	engine, _, _ := strings.Cut(load, " ")
	r := h.runWith(f, "exec", "-u", user, name, "--", "sh", "-ec", "image=$("+load+" | sed -n 's/^Loaded image: //p'); "+engine+" run --rm --network none $image cat /built")
	if r.code != 0 || r.out != "built\nchanged in a distro\n" {
		t.Errorf("%s: %s", engine, r)
	}
}

// testMoved moves docker's data through a clone and an archive: the daemon and its "restart"
// containers start with the distro, and images still work.
func testMoved(t *testing.T, h *host, name string) {
	file := filepath.Join(t.TempDir(), "moved.tar")
	h.ok(t, "stop", name)
	h.ok(t, "clone", name, "copy")
	h.ok(t, "export", "copy", file)
	h.ok(t, "unregister", "--yes", "copy")
	h.ok(t, "unregister", "--yes", name)
	h.ok(t, "import", name, file)
	out := h.sh(t, name, `systemctl is-system-running --wait
`+askWeb+`
docker info 2>/dev/null | grep -E '^ Storage Driver: btrfs$'
printf 'FROM built\nRUN cat /built\n' >~/Dockerfile
DOCKER_BUILDKIT=0 docker build --network none -t again ~ 2>/dev/null | grep ^built
docker rm -f web`)
	if want := "running\n" + served + "\n Storage Driver: btrfs\nbuilt\nweb"; out != want {
		t.Errorf("after a clone, an export and an import: %s\nwant %s", out, want)
	}
}

func testPodman(t *testing.T, h *host, name, layout string) {
	out := h.ok(t, "exec", "-u", "joe", name, "--", "sh", "-ec", `cd; podman import -q base.tar base >/dev/null
podman run -d -q --name web --memory 64m -p 18481:80 base `+serve+` >/dev/null
curl -s --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:18481/`)
	if out != served {
		t.Errorf("podman: %s\nwant %s", out, served)
	}
	within(t, quick, "the host reaches the container", func() bool { s, _ := httpGet("http://localhost:18481/"); return s == served+"\n" })
	h.ok(t, "exec", "-u", "joe", name, "--", "podman", "rm", "-f", "-t", "0", "web")
	runLayout(t, h, name, "joe", layout, "podman load -q")
}
