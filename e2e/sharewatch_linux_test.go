package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watching is a program that tells of changes, line by line.
type watching struct {
	t     *testing.T
	lines chan string
	got   []string
}

// watch has a program in a distro tell what inotify says of paths.
func (h *host) watch(t *testing.T, distro string, paths ...string) *watching {
	t.Helper()
	return listen(t, h.serve(t, distro, append([]string{"/var/tmp/watch"}, paths...)...))
}

func listen(t *testing.T, s *server) *watching {
	w := &watching{t: t, lines: make(chan string, 1<<16)}
	go func() {
		defer close(w.lines)
		var rest []byte
		for buf := make([]byte, 64<<10); ; {
			n, err := s.r.Read(buf)
			rest = append(rest, buf[:n]...)
			for {
				line, after, ok := bytes.Cut(rest, []byte("\n"))
				if !ok {
					break
				}
				w.lines <- string(line)
				rest = after
			}
			if err != nil {
				return
			}
		}
	}()
	return w
}

// want waits until all events have come in this order, others in between or not, and returns
// how long that took.
func (w *watching) want(events ...string) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for left := events; len(left) > 0; {
		select {
		case line, ok := <-w.lines:
			w.got = append(w.got, line)
			if line == left[0] {
				left = left[1:]
			}
			if ok {
				continue
			}
		case <-time.After(60 * time.Second): // without any
		}
		w.t.Fatalf("inotify says %q, want %q", w.got, events)
	}
	w.got = nil
	return time.Since(begin)
}

// onHost runs a script in a directory of the host.
func onHost(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// TestShareWatch changes files on the host, and expects that a distro knows at once.
func TestShareWatch(t *testing.T) {
	h := debian(t)
	program := program(t, "./testdata/watch")
	if r := h.runWith(bytes.NewReader(program), "exec", "-u", "root", "debian", "--", "sh", "-ec", "cat >/var/tmp/watch; chmod 755 /var/tmp/watch"); r.code != 0 {
		t.Fatal(r)
	}
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			dir := shareDir(t)
			onHost(t, dir, "mkdir d sub own; echo text >d/f; echo x >d/x; echo over >d/over; echo one >d/same; touch -d @1000 d/same")
			h.ok(t, "mount", "add", "--carrier", carrier, dir)
			t.Cleanup(func() { h.run("mount", "remove", dir) })
			t.Run("events", func(t *testing.T) { testShareEvents(t, h, dir) })
			t.Run("never stale", func(t *testing.T) { testNeverStale(t, h, dir) })
			t.Run("many changes", func(t *testing.T) { testManyChanges(t, h, dir) })
			t.Run("read-only", func(t *testing.T) { testNoForgedEchoes(t, h, dir) })
			h.ok(t, "mount", "add", "--writable", "--carrier", carrier, dir)
			t.Run("own changes", func(t *testing.T) { testOwnChanges(t, h, dir) })
			t.Run("killed server", func(t *testing.T) { testWatchKilledServer(t, h, dir) })
		})
	}
}

func testShareEvents(t *testing.T, h *host, dir string) {
	in := "/mnt/host" + dir + "/"
	w := h.watch(t, "debian", in+"d", in+"sub", in+"d/over")
	w.want("ready")
	tail := listen(t, h.serve(t, "debian", "tail", "-n", "1", "-f", in+"d/f"))
	tail.want("text")
	for _, step := range []struct {
		host string
		want []string
	}{
		{"echo new >d/new", []string{"create d/new", "modify d/new", "close d/new"}},
		{"mkdir d/dir", []string{"create d/dir"}},
		{"chmod 700 d/dir", []string{"attrib d/dir"}},
		{"rmdir d/dir", []string{"delete d/dir"}},
		{"mv d/new d/renamed", []string{"from d/new", "to d/renamed"}},
		{"mv d/renamed sub/across", []string{"from d/renamed", "to sub/across"}},
		{"mv d/x d/over", []string{"from d/x", "to d/over", "gone d/over"}},
		{"echo 1 >d/tmp; mv d/tmp d/over", []string{"to d/over"}},
		{"chmod 600 sub/across", []string{"attrib sub/across"}},
		{"rm sub/across", []string{"delete sub/across"}},
	} {
		onHost(t, dir, step.host)
		for i := range step.want {
			kind, path, _ := strings.Cut(step.want[i], " ")
			step.want[i] = kind + " " + in + path
		}
		t.Logf("%s: %v", step.host, w.want(step.want...).Round(time.Millisecond))
	}
	// Through a descriptor that stays open.
	f, err := os.OpenFile(filepath.Join(dir, "d/f"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		fmt.Fprintln(f, "line", i)
		w.want("modify " + in + "d/f")
		tail.want(fmt.Sprint("line ", i))
	}
	f.Close()
	w.want("close " + in + "d/f")
}

func testNeverStale(t *testing.T, h *host, dir string) {
	in := "/mnt/host" + dir + "/"
	w := h.watch(t, "debian", in+"d")
	w.want("ready")
	// The descriptor stays open, with all that the kernel knows of the file.
	s := h.serve(t, "debian", "perl", "-e", `$|=1; open F,"<","`+in+`d/same"; do { seek F,0,0; sysseek F,0,0; sysread F,$b,10; print $b; print -e "`+in+`d/absent" ? "there":"absent", "\n" } while <STDIN>`)
	if got := s.line() + s.line(); got != "oneabsent" {
		t.Fatalf("the distro reads %q", got)
	}
	onHost(t, dir, "echo two >d/same; touch -d @1000 d/same; touch d/absent")
	w.want("create " + in + "d/absent")
	got := h.sh(t, "debian", "cd "+in+"d; cat same; [ -e absent ]; stat -c '%s %Y' same")
	if got != "two\n4 1000" {
		t.Errorf("the distro reads %q", got)
	}
	if got := s.next() + s.line(); got != "twothere" {
		t.Errorf("the open file has %q", got)
	}
	onHost(t, dir, "rm d/absent")
	w.want("delete " + in + "d/absent")
	h.sh(t, "debian", "[ ! -e "+in+"d/absent ]")
}

func testManyChanges(t *testing.T, h *host, dir string) {
	in := "/mnt/host" + dir + "/many"
	onHost(t, dir, "mkdir many; cd many; for i in {1..1000}; do echo $i >f$i; done")
	list := func() string {
		return h.sh(t, "debian", "cd "+in+"; find . -printf '%P %s %m %T@\\n' | sort")
	}
	list()
	w := h.watch(t, "debian", in)
	w.want("ready")
	begin := time.Now()
	onHost(t, filepath.Join(dir, "many"), `for i in {1..3000}; do echo new >n$i; done; for i in {1..1000}; do echo more >>f$i; mv f$i m$i; rm n$i; done
		for i in {1001..2000}; do chmod 600 n$i; echo more >>n$i; done; echo >end`)
	made := time.Since(begin)
	w.want("create " + in + "/end")
	t.Logf("10,000 changes took the host %v, and the guest knows %v after the last", made.Round(time.Millisecond), (time.Since(begin) - made).Round(time.Millisecond))
	cmd := exec.Command("sh", "-c", "find . -printf '%P %s %m %T@\\n' | sort")
	cmd.Dir = filepath.Join(dir, "many")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := list(); got != strings.TrimSpace(string(out)) {
		t.Errorf("the guest sees\n%.2000s\nand the host\n%.2000s", got, out)
	}
}

// testNoForgedEchoes has root in a distro do what echoes do, on a share that is read-only.
func testNoForgedEchoes(t *testing.T, h *host, dir string) {
	onHost(t, dir, "mkdir forged; echo kept >forged/f; mkdir forged/dir")
	h.sh(t, "debian", `cd /; unshare -m sh -ec '
		mount --bind /mnt/host`+dir+` /media; mount -o remount,rw,bind /media; cd /media/forged
		no() { if "$@" 2>/dev/null; then echo "allowed: $*" >&2; exit 1; fi; }
		no touch f; no rm f; no mv f g; no mkdir new; no rmdir dir; no ln -s x l; no chmod 600 f; no truncate -s 0 f; no mknod p p; no sh -c "echo x >f"
		[ "$(cat f)" = kept ]; [ -d dir ]'`)
	onHost(t, dir, `[ "$(cat forged/f)" = kept ]; [ "$(ls forged)" = "dir
f" ]`)
}

// testOwnChanges has a distro change files. Its own watchers hear of it once, and the host's too.
func testOwnChanges(t *testing.T, h *host, dir string) {
	in := "/mnt/host" + dir + "/own"
	w := h.watch(t, "debian", in)
	w.want("ready")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, "own"), unix.IN_CREATE|unix.IN_CLOSE_WRITE); err != nil {
		t.Fatal(err)
	}
	h.sh(t, "debian", "cd "+in+"; echo text >f; chmod 600 f; mv f g; mkdir sub; rmdir sub; rm g")
	if _, err := f.Read(make([]byte, 4096)); err != nil {
		t.Errorf("a watcher on the host: %v", err)
	}
	onHost(t, dir, "touch own/last")
	want := []string{"create f", "modify f", "close f", "attrib f", "from f", "to g", "create sub", "delete sub", "delete g", "create last"}
	for i := range want {
		kind, name, _ := strings.Cut(want[i], " ")
		want[i] = kind + " " + in + "/" + name
	}
	var got []string
	for line := range w.lines {
		if got = append(got, line); line == want[len(want)-1] {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("inotify says %q, want %q", got, want)
	}
}

// testWatchKilledServer kills the server. Another one tells of changes, also of those in
// between.
func testWatchKilledServer(t *testing.T, h *host, dir string) {
	in := "/mnt/host" + dir + "/"
	h.sh(t, "debian", "cd "+in+"; ls -lR . >/dev/null; [ ! -e d/late ]; cat d/over")
	pid := h.mounted(t, dir).PID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	onHost(t, dir, "echo late >d/late; echo later >d/over")
	becomes(t, "another server", 30*time.Second, func() bool { m := h.mounted(t, dir); return m.PID != pid && m.PID != 0 })
	becomes(t, "the distro sees what has changed", 10*time.Second, func() bool {
		return h.run("exec", "-u", "root", "debian", "--", "sh", "-ec", `cd `+in+`; [ "$(cat d/late d/over)" = "late
later" ]`).code == 0
	})
	w := h.watch(t, "debian", in+"d")
	w.want("ready")
	onHost(t, dir, "echo >d/again")
	w.want("create " + in + "d/again")
}
