package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// busyboxes has the programs that busybox has read, by GOARCH.
var busyboxes sync.Map

// busybox returns the program of Debian's busybox-static for an architecture. None of the
// package is run.
func busybox(arch string) ([]byte, error) {
	if b, ok := busyboxes.Load(arch); ok {
		return b.([]byte), nil
	}
	dir, err := os.MkdirTemp("", "lsub-busybox-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=extract", "--architectures="+arch, "--include=busybox-static", "trixie", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: "mmdebstrap: " + string(out), Err: err}
	}
	b, err := os.ReadFile(filepath.Join(dir, "usr/bin/busybox"))
	if err == nil {
		busyboxes.Store(arch, b)
	}
	return b, err
}

// entry is an archive's header with its content.
type entry struct {
	tar.Header
	body string
}

// tinySystem is a root file system without systemd.
func tinySystem(t *testing.T) []entry {
	t.Helper()
	return tinySystemOf(t, runtime.GOARCH)
}

// tinySystemOf is tinySystem for an architecture.
func tinySystemOf(t *testing.T, arch string) []entry {
	t.Helper()
	bb, err := busybox(arch)
	if err != nil {
		t.Fatal(err)
	}
	dir := func(name string) entry {
		return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
	}
	list := []entry{dir("./"), dir("./bin/"), dir("./etc/"), dir("./root/"), dir("./tmp/"),
		{tar.Header{Typeflag: tar.TypeReg, Name: "./bin/busybox", Mode: 0o755, Size: int64(len(bb))}, string(bb)},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./etc/passwd", Mode: 0o644, Size: 29}, "root:x:0:0:root:/root:/bin/sh"},
	}
	for _, name := range strings.Fields("sh cat echo ls ps sleep true kill sync touch test id trap head setsid stat mkdir mount wc grep nslookup wget seq dd") {
		list = append(list, entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin/" + name, Linkname: "busybox"}})
	}
	return list
}

func archive(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tarball writes an archive to a file, in a format.
func tarball(t *testing.T, format string, plain []byte) string {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch format {
	case "tar":
		b.Write(plain)
	case "gz":
		w := gzip.NewWriter(&b)
		w.Write(plain)
		err = w.Close()
	case "zst":
		w, _ := zstd.NewWriter(&b)
		w.Write(plain)
		err = w.Close()
	case "xz":
		w, _ := xz.NewWriter(&b)
		w.Write(plain)
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "rootfs") // the content determines the format, not the name
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTinyInit(t *testing.T) {
	h := debian(t)
	plain := archive(t, tinySystem(t))
	for _, format := range []string{"tar", "gz", "xz", "zst"} {
		h.ok(t, "install", "--name", "tiny-"+format, "--from-file", tarball(t, format, plain))
		if out := h.ok(t, "exec", "tiny-"+format, "--", "cat", "/proc/self/cgroup"); out != "0::/.lsub" {
			t.Errorf("%s: %s", format, out)
		}
	}
	const name = "tiny-tar"
	// Orphans are reaped: there are no zombies.
	h.sh(t, name, `for i in 1 2 3; do sh -c 'sleep 0.01 & sleep 0.01 &'; done; while ps -o comm | grep -q sleep; do :; done; ! ps -o stat | grep Z`)
	// A stop reaches every process, and waits for its reaction.
	h.sh(t, name, `setsid sh -c 'trap "echo bye >/root/bye; exit" TERM; touch /tmp/ready; while :; do sleep 0.1; done' </dev/null >/dev/null 2>&1 &
while [ ! -e /tmp/ready ]; do sleep 0.05; done`)
	h.ok(t, "stop", name)
	if out := h.sh(t, name, "cat /root/bye"); out != "bye" {
		t.Errorf("after the stop: %q", out)
	}
	for _, format := range []string{"tar", "gz", "xz", "zst"} {
		h.ok(t, "unregister", "--yes", "tiny-"+format)
	}
}

// Archives that cannot become a distro give a clear error and leave nothing.
func TestBadArchives(t *testing.T) {
	h := debian(t)
	good := archive(t, tinySystem(t))
	with := func(e entry) []byte { return archive(t, append(tinySystem(t), e)) }
	gz, err := os.ReadFile(tarball(t, "gz", good))
	if err != nil {
		t.Fatal(err)
	}
	before := h.ok(t, "list", "--json")
	for name, content := range map[string][]byte{
		"cut off":            good[:len(good)/2],
		"cut off compressed": gz[:len(gz)/2],
		"no archive":         []byte(strings.Repeat("this is no archive\n", 100)),
		"empty":              {},
		"empty archive":      make([]byte, 1024),
		"parent":             with(entry{tar.Header{Typeflag: tar.TypeReg, Name: "../evil", Mode: 0o644}, ""}),
		"absolute":           with(entry{tar.Header{Typeflag: tar.TypeReg, Name: "/evil", Mode: 0o644}, ""}),
		"device":             with(entry{tar.Header{Typeflag: tar.TypeBlock, Name: "./disk", Devmajor: 8}, ""}),
		"hard link":          with(entry{tar.Header{Typeflag: tar.TypeLink, Name: "./evil", Linkname: "../../etc/shadow"}, ""}),
	} {
		t.Run(name, func(t *testing.T) {
			file := tarball(t, "tar", content)
			r := h.fails(t, 125, []string{"lsub: error: "}, "install", "--name", "bad", "--from-file", file)
			t.Log(strings.TrimSpace(r.err))
		})
	}
	h.fails(t, 125, []string{"no such file"}, "install", "--name", "bad", "--from-file", "/no/such/file")
	h.fails(t, 125, []string{"lsub: hint: "}, "install", "--name", "../bad", "debian")
	h.fails(t, 125, []string{"lsub: hint: "}, "install", "--name", "debian", "debian")
	if after := h.ok(t, "list", "--json"); after != before {
		t.Errorf("the list was\n%s\nand is\n%s", before, after)
	}
}
