package e2e

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// installManifest puts the manifest program into a distro.
func installManifest(t *testing.T, h *host, distro string) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "manifest")
	cmd := exec.Command("go", "build", "-o", bin, "./testdata/manifest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r := h.runWith(f, "exec", "-u", "root", distro, "--", "sh", "-c", "cat >/manifest && chmod 755 /manifest"); r.code != 0 {
		t.Fatal(r)
	}
}

// manifest lists the files below dir in a distro.
func manifest(t *testing.T, h *host, distro, dir string) []string {
	t.Helper()
	out := h.ok(t, "exec", "-u", "root", distro, "--", "/manifest", "list", dir)
	return strings.Split(out, "\n")
}

// sameTree reports the files that differ.
func sameTree(t *testing.T, got, want []string) {
	t.Helper()
	count := map[string]int{}
	for _, l := range want {
		count[l]++
	}
	for _, l := range got {
		count[l]--
	}
	reported := 0
	for _, list := range [][]string{want, got} {
		for _, l := range list {
			if n := count[l]; n != 0 && reported < 20 {
				t.Errorf("%s: %.700s", map[bool]string{true: "lost", false: "new"}[n > 0], l)
				reported++
			}
		}
	}
	if len(want) < 2 {
		t.Errorf("only %d files are there", len(want))
	}
}

// A running distro with all kinds of files is exported in each format and installed again.
// All files are unchanged.
func TestExportRoundTrip(t *testing.T) {
	h := fresh(t)
	h.ok(t, "install", "--from-file", tarball(t, "tar", archive(t, tinySystem(t))), "--name", "one")
	installManifest(t, h, "one")
	h.ok(t, "exec", "one", "--", "/manifest", "make", "/nasty")
	want := manifest(t, h, "one", "/nasty")
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	address := "oci:" + strings.TrimPrefix(server.URL, "http://") + "/os/nasty:1"
	dir := t.TempDir()
	h.ok(t, "snapshot", "create", "one", "kept")
	for i, to := range []string{"a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst", "oci.tar", "layout", "snapshot.tar", address} {
		args := []string{"export", "one", to}
		if to != address {
			args[2] = filepath.Join(dir, to)
		}
		switch to {
		case "oci.tar", "layout":
			args = append(args, "--format", "oci")
		case "snapshot.tar":
			args = append(args, "--snapshot", "kept")
		case address:
			args = append(args, "--insecure")
		}
		r := h.run(args...)
		if r.code != 0 || strings.Contains(r.err, "left out") {
			t.Fatal(r)
		}
		name := fmt.Sprintf("copy%d", i)
		if to == address {
			h.ok(t, "install", "--insecure", address, "--name", name)
		} else {
			h.ok(t, "install", "--from-file", args[2], "--name", name)
			if info, err := os.Stat(args[2]); err != nil || to == "a.tar" && info.Size() > 40<<20 {
				t.Errorf("%s has %d bytes, %v: are the holes in it?", to, info.Size(), err)
			}
		}
		t.Run(to, func(t *testing.T) { sameTree(t, manifest(t, h, name, "/nasty"), want) })
		h.ok(t, "unregister", "--yes", name)
	}
	// The host's own tools can read it too.
	if out, err := exec.Command("tar", "--xattrs", "--xattrs-include=*", "-tvf", filepath.Join(dir, "a.tar")).CombinedOutput(); err != nil || bytes.Contains(out, []byte("tar:")) {
		t.Errorf("tar: %v: %.2000s", err, out)
	}
	// A socket cannot be exported, and the export says so, as it does for a disk.
	h.sh(t, "one", "busybox mknod /disk b 8 0")
	r := h.run("export", "one", filepath.Join(dir, "b.tar"))
	if r.code != 0 || !strings.Contains(r.err, "lsub: warning: /disk is left out: a block device is no part of a distro") {
		t.Error(r)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// The export of a distro with busy writers is a consistent snapshot.
func TestExportRunning(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", `mkdir -p /srv/w
cat >/srv/writer <<'END'
i=0
while [ ! -e /srv/stop ]; do
	i=$((i+1))
	echo $i >/srv/w/.new; mv /srv/w/.new /srv/w/first
	ln -f /srv/w/first /srv/w/link
	echo $i >/srv/w/.new; mv /srv/w/.new /srv/w/second
	echo $i >>/srv/w/log
done
END
setsid sh /srv/writer >/dev/null 2>&1 </dev/null &
until [ -s /srv/w/log ]; do sleep 0.1; done`)
	defer h.run("exec", "-u", "root", "debian", "--", "touch", "/srv/stop")
	file := filepath.Join(t.TempDir(), "running.tar.zst")
	h.ok(t, "export", "debian", file)
	h.sh(t, "debian", "touch /srv/stop") // enough was written
	h.ok(t, "install", "--from-file", file, "--name", "at-one-moment")
	defer h.run("unregister", "--yes", "at-one-moment")
	h.sh(t, "at-one-moment", `first=$(cat /srv/w/first) second=$(cat /srv/w/second) log=$(tail -n 1 /srv/w/log)
echo "first $first, second $second, log $log of $(wc -l </srv/w/log)"
[ "$first" -gt 0 ]
[ "$first" = "$second" ] || [ "$first" = $((second+1)) ]
[ "$log" = "$second" ] || [ "$second" = $((log+1)) ]
[ "$(wc -l </srv/w/log)" = "$log" ]`)
	// Nothing of the system is lost either.
	installManifest(t, h, "debian")
	installManifest(t, h, "at-one-moment")
	for _, dir := range []string{"/usr", "/var/lib/dpkg", "/etc/systemd"} {
		sameTree(t, manifest(t, h, "at-one-moment", dir), manifest(t, h, "debian", dir))
	}
}

// A client that dies during an export leaves nothing behind in the VM, and no partial archive
// on the host.
func TestExportCutOff(t *testing.T) {
	h := debian(t)
	used := h.sh(t, "debian", "sync; df --output=used -B1M / | tail -n 1")
	h.sh(t, "debian", "head -c 300M /dev/urandom >/srv/noise; sync")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if out, err := exec.Command("mkfifo", pipe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := h.command(t.Context(), "export", "debian", pipe, "--format", "tar")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, 1<<20); err != nil { // no more, so the export blocks
		t.Fatal(err)
	}
	h.ok(t, "exec", "debian", "--", "true") // the VM does not block
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	h.ok(t, "exec", "-u", "root", "debian", "--", "rm", "/srv/noise")
	// After the snapshot is removed, the file's disk space is free again.
	h.sh(t, "debian", fmt.Sprintf(`for i in $(seq 300); do
	sync
	now=$(df --output=used -B1M / | tail -n 1)
	[ $now -gt $((%s + 150)) ] || exit 0
	sleep 0.2 # btrfs frees it in the background
done
echo "$now MiB are used, %s were before" >&2
exit 1`, used, used))
}
