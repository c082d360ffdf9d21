package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/images"
)

const wslConf = `# as Fedora's
[oobe]
command = /usr/libexec/wsl/oobe.sh
defaultUid = 1000
defaultName = Debian-WSL

[shortcut]
icon = /usr/share/wsl/debian.ico
`

const wslOobe = `#!/bin/bash
set -ue
echo 'Please create a default UNIX user account.'
while true; do
	read -r -p 'Enter new UNIX username: ' username
	if [ "$username" = quit ]; then exit 7; fi
	if /usr/sbin/useradd -u 1000 -m -s /bin/bash -G adm,sudo "$username"; then break; fi
done
`

// wslImage is a .wsl file: Debian's tree, with a setup like that of Fedora's and AlmaLinux's
// images.
func wslImage(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := images.ParseRef("debian")
	if err != nil {
		t.Fatal(err)
	}
	img, err := images.SourceOf(ref, filepath.Join(cache, "lsub"), nil).Pull(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name := filepath.Join(t.TempDir(), "install.wsl")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	tr, tw := tar.NewReader(r), tar.NewWriter(z)
	add := func(h *tar.Header, body io.Reader) {
		t.Helper()
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(tw, body); err != nil {
			t.Fatal(err)
		}
	}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		add(h, tr)
	}
	for _, e := range []entry{
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "./etc/wsl-distribution.conf", Linkname: "../usr/lib/wsl-distribution.conf"}, ""},
		file("./usr/lib/wsl-distribution.conf", wslConf),
		executable("./usr/libexec/wsl/oobe.sh", wslOobe),
	} {
		add(&e.Header, strings.NewReader(e.body))
	}
	for _, w := range []io.Closer{tw, z, f} {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// An image for WSL: its name, the command before the first shell, and the user that this
// creates.
func TestWSLImage(t *testing.T) {
	h := debian(t)
	h.ok(t, "install", "--from-file", wslImage(t))
	const name = "Debian-WSL"
	if out := h.ok(t, "exec", name, "--", "id", "-un"); out != "root" {
		t.Errorf("before the first shell: %q", out)
	}
	// Without an account there is no shell.
	x := openTerminal(t, h, "-d", name)
	x.expect("Enter new UNIX username: ")
	x.send("quit\r")
	x.expect("lsub: error: what " + name + " runs before its first shell ended with status 7")
	if err := <-x.done; err == nil || err.Error() != "exit status 7" {
		t.Errorf("the refused shell ended with %v, want exit status 7", err)
	}
	x = openTerminal(t, h, "-d", name)
	x.expect("Enter new UNIX username: ")
	x.send("Not A Name\r")
	x.expect("Enter new UNIX username: ")
	x.send("ada\r")
	x.expect("ada@debian-wsl")
	x.send("id -un; id -Gn; pwd; exit 3\r")
	x.expect("ada adm sudo")
	x.expect("/home/ada")
	if err := <-x.done; err == nil || err.Error() != "exit status 3" {
		t.Errorf("the shell ended with %v, want exit status 3", err)
	}
	// It runs only once, and the user stays, even in a copy that knows nothing of it.
	x = openTerminal(t, h, "-d", name)
	x.expect("ada@debian-wsl")
	x.send("exit\r")
	if err := <-x.done; err != nil {
		t.Error(err)
	}
	if out := h.ok(t, "exec", name, "--", "id", "-un"); out != "ada" {
		t.Errorf("after the first shell: %q", out)
	}
	h.ok(t, "stop", name)
	copied := filepath.Join(t.TempDir(), "copy.tar")
	h.ok(t, "export", name, copied)
	h.ok(t, "import", "copy", copied)
	if out := h.ok(t, "exec", "copy", "--", "id", "-un"); out != "ada" {
		t.Errorf("in the copy: %q", out)
	}
	for _, name := range []string{name, "copy"} {
		h.ok(t, "unregister", "--yes", name)
	}
}

// An archive on stdin. An image that is in the VM already is not uploaded again.
func TestImportStdin(t *testing.T) {
	h := debian(t)
	plain := archive(t, append(tinySystem(t), file("./etc/from", "a pipe\n")))
	for _, name := range []string{"piped", "again"} {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(plain)
		z.Close()
		started := time.Now()
		r := h.runWith(&b, "import", name, "-")
		if r.code != 0 {
			t.Fatal(r)
		}
		t.Logf("import of %d KiB: %v", len(plain)>>10, time.Since(started).Round(time.Millisecond))
		if unpacked := strings.Contains(r.err, "unpacking"); unpacked != (name == "piped") {
			t.Errorf("unpacked: %v: %s", unpacked, r.err)
		}
		if out := h.ok(t, "exec", name, "--", "cat", "/etc/from"); out != "a pipe" {
			t.Errorf("in %s: %q", name, out)
		}
	}
	before := h.ok(t, "list", "--json")
	for what, content := range map[string]io.Reader{
		"is empty":             strings.NewReader(""),
		"is not a tar archive": strings.NewReader("hello"),
		"is cut off":           bytes.NewReader(plain[:len(plain)/2]),
	} {
		r := h.runWith(content, "import", "bad", "-")
		if r.code != 125 || !strings.Contains(r.err, "lsub: error: stdin: "+what) {
			t.Errorf("an archive that %s: %s", what, r)
		}
	}
	if after := h.ok(t, "list", "--json"); after != before {
		t.Errorf("the list was\n%s\nand is\n%s", before, after)
	}
	for _, name := range []string{"piped", "again"} {
		h.ok(t, "unregister", "--yes", name)
	}
}

// A Debian image with an additional package.
func TestDebianInclude(t *testing.T) {
	h := debian(t)
	h.ok(t, "install", "debian?include=hello", "--name", "more")
	if out := h.ok(t, "exec", "more", "--", "hello"); out != "Hello, world!" {
		t.Errorf("in the distro: %q", out)
	}
	h.ok(t, "unregister", "--yes", "more")
	h.fails(t, 125, []string{"unable to locate package no-such-package"}, "install", "debian?include=no-such-package", "--name", "none")
}
