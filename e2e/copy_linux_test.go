package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// listTree is a shell script that lists a tree: types, permissions, times, links and
// contents.
const listTree = `cd "$1"; find . -mindepth 1 ! -type l -printf '%P %y %m %T@\n' | sort; find . -type l -printf '%P %l\n'; find . -type f -exec sha256sum {} + | sort; du -s --block-size=1M . | cut -f1`

// TestCopy copies a tree into a distro and back, as its user.
func TestCopy(t *testing.T) {
	h := debian(t)
	dir := t.TempDir()
	script := `mkdir -p src/sub/empty src/many; cd src
		printf 'x' >a; chmod 751 a; ln a same; ln -s sub/none link; printf 'odd' >'na me
with end'; printf b >sub/ro; chmod 400 sub/ro; chmod 500 sub
		touch -d '2001-02-03 04:05:06.789012345' a
		truncate -s 200M holes; printf middle | dd of=holes bs=1 seek=100000000 conv=notrunc status=none
		head -c 3000000 /dev/urandom >random
		for i in $(seq 500); do echo $i >many/$i; done; touch -d '2001-02-03 04:05:06' many`
	run := func(name, script string, args ...string) string {
		t.Helper()
		cmd := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return string(out)
	}
	run("make", script)
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", dir).Run() })
	want := run("list", listTree, "src")
	h.sh(t, "debian", "id ann >/dev/null 2>&1 || useradd -m ann")
	h.ok(t, "cp", "-u", "ann", dir+"/src", "debian:")
	list := []string{"exec", "-u", "ann", "debian", "--", "sh", "-ec", listTree, "sh", "/home/ann/src"}
	if got := h.ok(t, list...); got != strings.TrimSpace(want) {
		t.Errorf("in the distro:\n%s\nwant\n%s", got, want)
	}
	if out := h.ok(t, "exec", "-u", "root", "debian", "--", "sh", "-c", "find /home/ann/src ! -user ann; find /home/ann -name '.lsub-*'; stat -c %h /home/ann/src/a"); out != "2" {
		t.Errorf("files of others, parts, names of a: %q", out)
	}
	h.ok(t, "cp", "-u", "ann", "debian:src", dir+"/back")
	if got := run("list", listTree, "back"); got != want {
		t.Errorf("back:\n%s\nwant\n%s", got, want)
	}
	// From distro to distro, and through pipes.
	h.ok(t, "cp", "-u", "ann", "debian:src/.", "debian:again")
	list[len(list)-1] = "/home/ann/again"
	if got := h.ok(t, list...); got != strings.TrimSpace(want) {
		t.Errorf("from the distro to itself:\n%s", got)
	}
	random, err := os.ReadFile(dir + "/src/random")
	if err != nil {
		t.Fatal(err)
	}
	if r := h.runWith(bytes.NewReader(random), "cp", "-u", "ann", "-", "debian:piped"); r.code != 0 {
		t.Fatal(r)
	}
	if r := h.run("cp", "-u", "ann", "debian:~/piped", "-"); r.code != 0 || r.out != string(random) {
		t.Errorf("stdout: exit %d, %d bytes of %d: %s", r.code, len(r.out), len(random), r.err)
	}

	// As the user, and no more.
	h.fails(t, 125, []string{"permission denied"}, "cp", "-u", "ann", "debian:/etc/shadow", dir+"/")
	h.fails(t, 125, []string{"permission denied"}, "cp", "-u", "ann", dir+"/src/a", "debian:/etc/")
	h.fails(t, 125, []string{"there is no folder /none"}, "cp", dir+"/src/a", "debian:/none/")
	h.sh(t, "debian", "rm -rf /home/ann/src /home/ann/again")
}

// TestCopyDiskFull fills the disk of either side.
func TestCopyDiskFull(t *testing.T) {
	h := debian(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/big", bytes.Repeat([]byte("full"), 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	h.sh(t, "debian", "mkdir -p /full; mount -t tmpfs -o size=4m full /full")
	h.fails(t, 125, []string{"no space left on device", "--resume"}, "cp", "-u", "root", dir+"/big", "debian:/full/big")
	if out := h.sh(t, "debian", "ls -A /full | grep -v lsub-part || true"); out != "" {
		t.Errorf("left in the distro: %s", out)
	}
	h.sh(t, "debian", "mount -o remount,size=20m /full")
	h.ok(t, "cp", "-u", "root", "--resume", dir+"/big", "debian:/full/big")
	if out := h.sh(t, "debian", "cd /full; ls -A; wc -c <big; head -c 4 big"); out != "big\n8388608\nfull" {
		t.Errorf("after the second copy: %q", out)
	}

	// The host's side, in a mount namespace that the command alone has.
	full := filepath.Join(dir, "full")
	os.Mkdir(full, 0o755)
	script := fmt.Sprintf(`mount -t tmpfs -o size=4m full %[1]s
		if "$@" cp -u root debian:/full/big %[1]s/big; then exit 3; fi
		ls -A %[1]s | grep -v lsub-part && exit 4
		mount -o remount,size=20m %[1]s
		"$@" cp -u root --resume debian:/full/big %[1]s/big; cmp %[1]s/big %[2]s/big; ls -A %[1]s`, full, dir)
	in := *h
	in.in = []string{"unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "sh", "-c", script, "sh"}
	if os.Getuid() == 0 {
		in.in = []string{"unshare", "--mount", "sh", "-c", script, "sh"}
	}
	if r := in.run(); r.code != 0 || r.out != "big\n" || !strings.Contains(r.err, "no space left on device") {
		t.Errorf("the host's disk: %s", r)
	}
	h.sh(t, "debian", "umount /full")
}

// TestCopyInterrupted ends lsub, and the distro, in a copy.
func TestCopyInterrupted(t *testing.T) {
	h := debian(t)
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	f, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 64 << 10 {
		fmt.Fprintf(f, "%1023d\n", i)
	}
	f.Close()
	h.sh(t, "debian", "rm -rf /c; mkdir /c")
	part := func() bool {
		return h.run("exec", "-u", "root", "debian", "--", "sh", "-c", "test -e /c/big || find /c -name '.lsub-part-*' -size +2M | grep -q .").code == 0
	}
	cmd := h.command(t.Context(), "cp", "-u", "root", big, "debian:/c/big")
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, slow, "a part of the copy is there, or all", part)
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if cmd.ProcessState.ExitCode() == 130 { // else it was faster than we
		if s := out.String(); !strings.Contains(s, "interrupted") || !strings.Contains(s, "--resume") {
			t.Errorf("stderr: %s", s)
		}
		if r := h.run("exec", "-u", "root", "debian", "--", "test", "-e", "/c/big"); r.code != 1 {
			t.Errorf("half a file has its name: %s", r)
		}
	}
	h.ok(t, "cp", "--resume", "-u", "root", big, "debian:/c/big")
	sum, err := exec.Command("sha256sum", big).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := h.sh(t, "debian", "sha256sum </c/big; ls -A /c"); !strings.HasPrefix(got, string(sum[:64])) || !strings.HasSuffix(got, "\nbig") {
		t.Errorf("after --resume: %s", got)
	}
	h.sh(t, "debian", "rm -rf /c")
}

// TestPathsAndVariables asks both sides for the names of paths, and passes variables on.
func TestPathsAndVariables(t *testing.T) {
	h := fresh(t)
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a b/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	h.ok(t, "install", "debian")
	h.ok(t, "mount", "add", dir+"/a b")
	guest := h.ok(t, "path", "-g", dir+"/a b/sub")
	if want := "/mnt/host" + dir + "/a b/sub"; guest != want {
		t.Errorf("path -g: %q, want %q", guest, want)
	}
	script := `cd "$1"; pwd; wslpath -w .; wslpath -u "$2"; wslpath -w /etc/passwd 2>/dev/null || echo none; readlink /usr/local/bin/wslpath`
	want := guest + "\n" + dir + "/a b/sub\n" + guest + "\nnone\n/run/lsub/bin/wslpath"
	if out := h.ok(t, "exec", "debian", "--", "sh", "-c", script, "sh", guest, dir+"/a b/sub"); out != want {
		t.Errorf("wslpath: %q, want %q", out, want)
	}
	if out := h.ok(t, "exec", "debian", "--", "wslpath", "-w", dir+"/a b/sub"); out != dir+"/a b/sub" {
		t.Errorf("the share at its own path: %q", out)
	}
	h.env = append(h.env, "LSUBENV=AT/p", "AT="+dir+"/a b/sub")
	if out := h.ok(t, "exec", "debian", "--", "sh", "-c", `cd "$AT" && pwd`); out != guest {
		t.Errorf("$AT: %q", out)
	}
	// What the distro has of the name stays.
	h.sh(t, "debian", "rm /usr/local/bin/wslpath; echo own >/usr/local/bin/wslpath")
	h.ok(t, "stop", "debian")
	if out := h.sh(t, "debian", "cat /usr/local/bin/wslpath; echo x 2>/dev/null >/run/lsub/bin/lsub-tool || echo read-only"); out != "own\nread-only" {
		t.Errorf("the distro's own: %q", out)
	}
}
