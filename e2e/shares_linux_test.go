package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mounted is what "mount list --json" says of a shared folder.
type mounted struct {
	Host    string `json:"host"`
	Guest   string `json:"guest"`
	Carrier string `json:"carrier"`
	PID     int    `json:"pid"`
	Error   string `json:"error"`
}

func (h *host) mounted(t *testing.T, dir string) *mounted {
	t.Helper()
	var all []mounted
	if err := json.Unmarshal([]byte(h.ok(t, "mount", "list", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].Host == dir {
			return &all[i]
		}
	}
	return nil
}

// shareDir returns a folder to share. It is not below the home folder, which is shared.
func shareDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// carriers are the ways in which a share comes to the guest.
var carriers = []string{"virtiofs", "stream"}

func TestShares(t *testing.T) {
	h := debian(t)
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			dir := shareDir(t)
			h.ok(t, "exec", "debian", "--", "true") // the VM and the distro run already
			h.ok(t, "mount", "add", "--writable", "--carrier", carrier, dir)
			t.Cleanup(func() { h.run("mount", "remove", dir) })
			m := h.mounted(t, dir)
			if m == nil || m.Carrier != carrier || m.Guest != "/mnt/host"+dir || m.PID == 0 || m.Error != "" {
				t.Fatalf("mounted: %+v", m)
			}
			t.Run("files", func(t *testing.T) { testShareFiles(t, h, dir) })
			t.Run("killed server", func(t *testing.T) { testKilledServer(t, h, dir) })
			t.Run("removed while in use", func(t *testing.T) { testRemovedShare(t, h, dir) })
		})
	}
}

func testShareFiles(t *testing.T, h *host, dir string) {
	if err := os.WriteFile(filepath.Join(dir, "from-host"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := h.sh(t, "debian", `
		no() { if "$@" 2>/dev/null; then echo "allowed: $*" >&2; exit 1; fi; }
		cd /mnt/host`+dir+`
		[ "$(cat from-host)" = "of the host" ]
		[ "$(cat `+dir+`/from-host)" = "of the host" ] # at the same path too
		echo guest >from-guest
		# A file that is open outlives its name, and a directory that is in use.
		exec 3<>open; echo text >&3; rm open; [ "$(cat <&3)" = "" ]; cat /proc/self/fd/3
		mkdir d; (cd d; rmdir ../d; no touch x)
		ln from-guest hard; [ "$(stat -c %h hard)" = 2 ]; rm hard
		ln -s /etc/passwd link; [ "$(readlink link)" = /etc/passwd ]
		mv from-guest moved; [ "$(cat moved)" = guest ]
		truncate -s 5G sparse; [ "$(stat -c %s sparse)" = 5368709120 ]; [ "$(stat -c %b sparse)" -lt 100 ]; rm sparse
		dd if=/dev/urandom of=big bs=1M count=20 conv=fsync 2>/dev/null; sha256sum <big >big.sum
		touch "$(printf 'bytes\377')"; ls | grep -q bytes
		chmod 640 moved; [ "$(stat -c %a moved)" = 640 ]
		touch -d @1000000000.5 moved; [ "$(stat -c %.Y moved)" = 1000000000.500000000 ]
		# Devices and other owners stay out.
		no mknod null c 1 3
		no chown 33:33 moved
		mkfifo fifo; (echo through >fifo &); cat fifo
		# A mapped file, and locks that the host keeps.
		cp /bin/true prog; chmod +x prog; ./prog
		perl -e 'use Fcntl; open F,">lock"; my $l=pack("s s x4 q q l x4",F_WRLCK,0,0,0,0); print fcntl(F,F_SETLK,$l) ? "locked\n" : "not locked: $!\n"'
		stat -f -c %T . >/dev/null
	`)
	if !strings.Contains(got, "through") || !strings.Contains(got, "locked") || strings.Contains(got, "not locked") || !strings.Contains(got, "text") {
		t.Errorf("the script says:\n%s", got)
	}
	for name, want := range map[string]string{"moved": "guest\n"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s has %q, %v", name, b, err)
		}
	}
	if fi, err := os.Lstat(filepath.Join(dir, "fifo")); err != nil || fi.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("fifo: %v, %v", fi, err)
	}
	h.sh(t, "debian", `cd `+dir+`; echo 3 >/proc/sys/vm/drop_caches; [ "$(sha256sum <big)" = "$(cat big.sum)" ]`)
	// What the host writes is seen within the second that is promised.
	if err := os.WriteFile(filepath.Join(dir, "moved"), []byte("changed on the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	becomes(t, "a change of the host is seen", 20*time.Second, func() bool {
		return h.sh(t, "debian", "cat "+dir+"/moved") == "changed on the host"
	})
	// Nothing above the folder is there.
	h.sh(t, "debian", `[ "$(ls -A /mnt/host`+filepath.Dir(dir)+`)" = "`+filepath.Base(dir)+`" ]`)
}

// testKilledServer kills the server of a share while a distro writes.
func testKilledServer(t *testing.T, h *host, dir string) {
	pid := h.mounted(t, dir).PID
	h.sh(t, "debian", `cd `+dir+`; rm -f stop count failed
		(i=0; while [ ! -e /tmp/stop-writing ]; do echo $i >f 2>/dev/null || echo x >>/tmp/failed; i=$((i+1)); echo $i >/tmp/count; done; rm /tmp/stop-writing; touch /tmp/stopped) >/dev/null 2>&1 &`)
	count := func() int {
		n, _ := strconv.Atoi(h.sh(t, "debian", "cat /tmp/count || true"))
		return n
	}
	becomes(t, "the distro writes", 30*time.Second, func() bool { return count() > 20 })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	before := count()
	becomes(t, "the distro goes on", 30*time.Second, func() bool { return count() > before+20 })
	h.sh(t, "debian", "touch /tmp/stop-writing")
	becomes(t, "the writer ends", 30*time.Second, func() bool {
		return h.run("exec", "-u", "root", "debian", "--", "test", "-e", "/tmp/stopped").code == 0
	})
	h.sh(t, "debian", "rm -f /tmp/stopped /tmp/count /tmp/failed; echo again >"+dir+"/again; cat "+dir+"/again")
	if b, err := os.ReadFile(filepath.Join(dir, "again")); err != nil || string(b) != "again\n" {
		t.Errorf("%q, %v", b, err)
	}
	if now := h.mounted(t, dir); now.PID == pid || now.PID == 0 {
		t.Errorf("process %d serves, %d was killed", now.PID, pid)
	}
}

// testRemovedShare removes a share while a distro has a file of it open.
func testRemovedShare(t *testing.T, h *host, dir string) {
	h.sh(t, "debian", `cd /; (exec 3>`+dir+`/held; sleep 1000) >/dev/null 2>&1 & echo $! >/tmp/holder`)
	h.ok(t, "mount", "remove", dir)
	h.sh(t, "debian", `kill $(cat /tmp/holder); [ ! -e /mnt/host`+dir+`/held ]; [ ! -e `+dir+`/held ]`)
	if m := h.mounted(t, dir); m != nil {
		t.Errorf("still there: %+v", m)
	}
}

// TestSharedHome checks what is shared by default: the home folder, read-only, and that
// commands start where their caller is.
func TestSharedHome(t *testing.T) {
	h := debian(t)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(home, "lsub-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h.sh(t, "debian", `cd /mnt/host`+dir+`
		for c in "touch x" "rmdir /mnt/host`+dir+`" "chmod 700 ." "mkdir y"; do if $c 2>/dev/null; then echo "allowed: $c" >&2; exit 1; fi; done`)
	cmd := h.command(t.Context(), "exec", "debian", "--", "pwd")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "/mnt/host"+dir {
		t.Errorf("a command starts in %s, %v", out, err)
	}
}

// TestShareFewDescriptors has a distro know and hold more files than the server may open.
func TestShareFewDescriptors(t *testing.T) {
	h := debian(t)
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			dir := shareDir(t)
			const files = 2000
			for i := range files {
				sub := filepath.Join(dir, fmt.Sprint("d", i%50))
				if err := os.MkdirAll(sub, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", i)), fmt.Append(nil, i), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			h.ok(t, "mount", "add", "--carrier", carrier, dir)
			t.Cleanup(func() { h.run("mount", "remove", dir) })
			pid := h.mounted(t, dir).PID
			// As under "ulimit -n 300". The server has asked for its limit already.
			if n := openFiles(t, pid); n > 100 {
				t.Errorf("%d descriptors at the start", n)
			}
			out := h.sh(t, "debian", `ulimit -n 4096; cd /mnt/host`+dir+`; [ $(find . -type f | wc -l) = `+fmt.Sprint(files)+` ]
				perl -e 'for $i (0..`+fmt.Sprint(files-1)+`) { my $f; open($f,"<","d".($i%50)."/f$i") or die "open $i: $!"; push @f,$f }
					for $i (0..$#f) { my $f=$f[$i]; my $l=<$f>; $l eq $i or die "file $i has $l" } print "read ".@f'`)
			if out != fmt.Sprint("read ", files) {
				t.Errorf("the distro says %q", out)
			}
		})
	}
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
