package share_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/sharemount"
	"github.com/lsub/lsub/share"
)

// echoing is a share on this machine whose changes are told. The host's part is played by
// other processes: the server knows its own changes by its process, which is this one.
type echoing struct {
	t        testing.TB
	s        *share.Server
	at, dir  string
	root     *os.File
	barriers int
	stop     func() // ends the connection of the echoes
}

func mountEchoing(t testing.TB, cfg share.Config, files string) *echoing {
	t.Helper()
	cfg.Dir = t.TempDir()
	e := &echoing{t: t, dir: cfg.Dir}
	e.host(files)
	s, err := share.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	e.s = s
	e.at, e.root = mount(t, !cfg.Writable, func(conn net.Conn) error { return s.ServeStream(t.Context(), conn) })
	e.connect()
	return e
}

// connect has the echoes begin.
func (e *echoing) connect() {
	e.t.Helper()
	ours, theirs := pair(e.t)
	ctx, cancel := context.WithCancel(context.Background())
	served, echoed := make(chan error, 1), make(chan error, 1)
	go func() {
		served <- e.s.ServeEchoes(ctx, ours)
		ours.Close()
	}()
	go func() { echoed <- sharemount.Echo(theirs, e.root) }()
	ended := false
	e.stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-served; err != nil {
			e.t.Error(err)
		}
		<-echoed
		theirs.Close()
	}
	e.t.Cleanup(func() { e.stop() })
	for !e.s.Promising() { // the agent's thread has not said its number yet
		time.Sleep(time.Millisecond)
	}
}

// host runs a script in the directory, as another process of the host.
func (e *echoing) host(script string) {
	e.t.Helper()
	e.in(e.dir, script)
}

// in runs a script in a directory.
func (e *echoing) in(dir, script string) {
	e.t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// inotify watches paths below the mount.
func (e *echoing) inotify(paths ...string) *notes {
	e.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		e.t.Fatal(err)
	}
	n := &notes{t: e.t, f: os.NewFile(uintptr(fd), "inotify"), names: map[int32]string{}}
	e.t.Cleanup(func() { n.f.Close() })
	for _, p := range paths {
		const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_DELETE_SELF
		wd, err := unix.InotifyAddWatch(fd, filepath.Join(e.at, p), mask)
		if err != nil {
			e.t.Fatal(err)
		}
		n.names[int32(wd)] = p
	}
	return n
}

// notes are what inotify tells.
type notes struct {
	t     testing.TB
	f     *os.File
	names map[int32]string
	got   []string
}

// read waits for more, and returns false if there is none for so long.
func (n *notes) read(wait time.Duration) bool {
	n.f.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 64<<10)
	size, err := n.f.Read(buf)
	if err != nil {
		return false
	}
	for b := buf[:size]; len(b) >= 16; {
		ne := binary.NativeEndian
		mask, size := ne.Uint32(b[4:]), ne.Uint32(b[12:])
		name := string(bytes.TrimRight(b[16:16+size], "\x00"))
		for bit, what := range map[uint32]string{unix.IN_CREATE: "create", unix.IN_DELETE: "delete", unix.IN_MOVED_FROM: "from", unix.IN_MOVED_TO: "to",
			unix.IN_MODIFY: "modify", unix.IN_CLOSE_WRITE: "close", unix.IN_ATTRIB: "attrib", unix.IN_DELETE_SELF: "gone"} {
			if mask&bit != 0 {
				n.got = append(n.got, what+" "+filepath.Join(n.names[int32(ne.Uint32(b))], name))
			}
		}
		b = b[16+size:]
	}
	return true
}

// want waits until all events have come, in this order, others in between or not.
func (n *notes) want(events ...string) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		left := events
		for _, g := range n.got {
			if len(left) > 0 && left[0] == g {
				left = left[1:]
			}
		}
		if len(left) == 0 {
			n.t.Log(n.got)
			n.got = nil
			return
		}
		if !n.read(time.Until(deadline)) {
			n.t.Errorf("inotify says %q, want %q", n.got, events)
			n.got = nil
			return
		}
	}
}

// TestEchoes changes files on the host, and expects what a watcher in the guest is told.
func TestEchoes(t *testing.T) {
	for _, writable := range []bool{true, false} {
		t.Run(fmt.Sprint("writable ", writable), func(t *testing.T) {
			e := mountEchoing(t, share.Config{Writable: writable, MaxFDs: 8}, "mkdir d sub; echo text >d/f; echo x >d/x; echo over >d/over; touch sub/s")
			n := e.inotify("d", "sub", "d/over")
			for _, step := range []struct {
				host string
				want []string
			}{
				{"echo new >d/new", []string{"create d/new", "modify d/new", "close d/new"}},
				{"echo more >>d/f", []string{"modify d/f", "close d/f"}},
				{"mv d/f d/g", []string{"from d/f", "to d/g"}},
				{"mv d/g sub/h", []string{"from d/g", "to sub/h"}},
				{"mv d/x d/over", []string{"from d/x", "to d/over", "gone d/over"}},
				{"echo 1 >d/tmp; mv d/tmp d/over", []string{"to d/over"}},
				{"rm d/new", []string{"delete d/new"}},
				{"mkdir d/dir", []string{"create d/dir"}},
				{"chmod 700 d/dir", []string{"attrib d/dir"}},
				{"rmdir d/dir", []string{"delete d/dir"}},
				{"ln -s target d/link", []string{"create d/link"}},
				{"mkfifo d/fifo", []string{"create d/fifo"}},
				{"chmod 600 sub/h", []string{"attrib sub/h"}},
				{"truncate -s 3 sub/h", []string{"modify sub/h"}},
				{"ln sub/h d/hard", []string{"create d/hard"}},
				{"mv sub/s moved", []string{"from sub/s"}},
				{"mv moved ../outside-$$", nil},
			} {
				e.host(step.host)
				n.want(step.want...)
			}
			if got, err := os.Readlink(filepath.Join(e.at, "d/link")); err != nil || got != "target" {
				t.Errorf("the link leads to %q, %v", got, err)
			}
			if got := e.tree(e.at); got != e.tree(e.dir) {
				t.Errorf("the guest sees\n%s\nand the host\n%s", got, e.tree(e.dir))
			}
		})
	}
}

// barrier waits until the guest has heard of all that has happened on the host.
func (e *echoing) barrier() {
	e.t.Helper()
	e.barriers++
	name := fmt.Sprint("barrier", e.barriers)
	n := e.inotify("")
	e.host("mkdir " + name)
	n.want("create " + name)
	e.host("rmdir " + name)
	n.want("delete " + name)
}

// TestOwnChanges has the guest change files: nobody repeats that.
func TestOwnChanges(t *testing.T) {
	e := mountEchoing(t, share.Config{Writable: true}, "mkdir d")
	n := e.inotify("d")
	cmd := exec.Command("bash", "-euc", "echo text >f; echo more >>f; chmod 600 f; mv f g; mkdir sub; rmdir sub; ln g h; rm g")
	cmd.Dir = filepath.Join(e.at, "d")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e.barrier()
	for n.read(100 * time.Millisecond) {
	}
	want := []string{"create d/f", "modify d/f", "close d/f", "modify d/f", "close d/f", "attrib d/f", "from d/f", "to d/g", "create d/sub", "delete d/sub", "create d/h", "delete d/g"}
	if !slices.Equal(n.got, want) {
		t.Errorf("inotify says\n%q, want\n%q", n.got, want)
	}
}

// TestNeverStale reads what the host has changed, at once: the times of what the guest knows
// are long.
func TestNeverStale(t *testing.T) {
	e := mountEchoing(t, share.Config{Writable: true}, "mkdir d; echo one >d/f; touch -d @1000 d/f")
	in := func(name string) string { return filepath.Join(e.at, name) }
	stat := func(name string) error {
		var st unix.Stat_t
		return unix.Stat(in(name), &st)
	}
	fd, err := unix.Open(in("d/f"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	read := func() string {
		b := make([]byte, 10)
		n, err := unix.Pread(fd, b, 0)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := read(); got != "one\n" || stat("d/new") != unix.ENOENT || stat("d/f") != nil {
		t.Fatalf("read %q", got)
	}
	before := e.s.Requests()
	for range 100 {
		if err := stat("d/f"); err != nil {
			t.Fatal(err)
		}
		if err := stat("d/new"); err != unix.ENOENT {
			t.Fatal(err)
		}
		read()
	}
	if n := e.s.Requests() - before; n != 0 {
		t.Errorf("%d requests for what is known", n)
	}
	e.host("echo two >d/f; touch -d @1000 d/f") // of the same size and time
	e.barrier()
	if got := read(); got != "two\n" {
		t.Errorf("read %q", got)
	}
	e.host("echo >d/new")
	e.barrier()
	if err := stat("d/new"); err != nil {
		t.Errorf("the new file: %v", err)
	}
	e.host("rm d/new")
	e.barrier()
	if err := stat("d/new"); err != unix.ENOENT {
		t.Errorf("the removed file: %v", err)
	}
	e.host("mv d e; mkdir d; echo other >d/f")
	e.barrier()
	if b, err := os.ReadFile(in("d/f")); err != nil || string(b) != "other\n" {
		t.Errorf("%q, %v", b, err)
	}
	if got := read(); got != "two\n" {
		t.Errorf("the open file has %q", got)
	}

	// While nobody tells of changes, they count when somebody does.
	if err := stat("d/new"); err != unix.ENOENT {
		t.Fatal(err)
	}
	stat("e/f")
	e.stop()
	e.host("echo x >d/new; rm e/f; chmod 600 d/f; echo more >>d/f")
	e.connect()
	e.barrier()
	if got, want := e.tree(e.at), e.tree(e.dir); got != want {
		t.Errorf("the guest sees\n%s\nand the host\n%s", got, want)
	}
}

// TestManyChanges makes 10,000 changes at once.
func TestManyChanges(t *testing.T) {
	e := mountEchoing(t, share.Config{}, "mkdir d; for i in {1..2000}; do echo $i >d/f$i; done")
	e.tree(e.at)
	n := e.inotify("d")
	e.host(`for i in {1..2000}; do echo new >d/n$i; echo change >>d/f$i; done; for i in {1..1000}; do mv d/f$i d/m$i; rm d/n$i; done
		for i in {1..2000}; do echo last >d/l$i; done; for i in {1..2000}; do echo last >>d/l$i; done; touch d/end; rm d/end; touch d/really`)
	n.want("create d/really")
	if got, want := e.tree(e.at), e.tree(e.dir); got != want {
		t.Errorf("the guest sees other files than the host")
	}
}

// TestBothChange has the host and the guest change the same files at random, while others
// look at them. In the end both see the same.
func TestBothChange(t *testing.T) {
	e := mountEchoing(t, share.Config{Writable: true, MaxFDs: 16}, "mkdir a b c a/sub")
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	script := func(n int) string {
		var b strings.Builder
		dirs := []string{"a", "b", "c", "a/sub", "b/sub", "."}
		name := func() string { return fmt.Sprintf("%s/n%d", dirs[r.IntN(len(dirs))], r.IntN(4)) }
		for i := range n {
			x, y := name(), name()
			op := []string{"echo ID >X", "echo ID >>X", "rm -rf X", "mv -T X Y", "mkdir -p X", "ln -f X Y", "ln -sfn xID X", "chmod 6M0 X", "touch -d @1M X",
				"mv -T a/sub b/sub", "mv -T b/sub a/sub", "echo ID >X.tmp; mv -T X.tmp Y", "cp -r a/sub X"}[r.IntN(13)]
			b.WriteString(strings.NewReplacer("X", x, "Y", y, "ID", fmt.Sprint(1000+i), "M", fmt.Sprint(r.IntN(8))).Replace(op) + "\n")
		}
		return "exec 2>/dev/null; set +e\n" + b.String() + "exit 0"
	}
	for round := range 4 {
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for _, look := range []string{"find . -type f -exec cat {} + ; exit 0", "ls -lR; stat a/n{1..4} b/n{1..4}; exit 0"} {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						e.in(e.at, "exec >/dev/null 2>&1; set +e;"+look)
					}
				}
			})
		}
		host, guest := script(150), script(round*25) // in the first round, the guest only looks
		var changing sync.WaitGroup
		changing.Go(func() { e.host(host) })
		changing.Go(func() { e.in(e.at, guest) })
		changing.Wait()
		e.barrier()
		got, want := e.tree(e.at), e.tree(e.dir)
		if got != want {
			time.Sleep(1100 * time.Millisecond) // what is said of files with several names holds for a second
			got = e.tree(e.at)
		}
		if got != want {
			t.Errorf("round %d: the guest (-) sees other files than the host (+):\n%s", round, cmp.Diff(strings.Split(got, "\n"), strings.Split(want, "\n")))
		}
		close(stop)
		wg.Wait()
		if t.Failed() {
			break
		}
	}
}

// TestWarmTree counts the requests of programs that look at a tree again.
func TestWarmTree(t *testing.T) {
	e := mountEchoing(t, share.Config{Writable: true}, `git init -q -b main . && git config user.email a@b && git config user.name n
		for d in d{1..50}; do mkdir -p $d/sub; for f in {1..20}; do echo $d $f >$d/f$f; echo x >$d/sub/f$f; done; done; git add -A; git commit -qm all; sleep 1.1; git status >/dev/null`)
	const nodes = 50*2*20 + 50*2
	for _, look := range []struct {
		name, script string
		most         uint64
	}{
		{"git status", "git --no-optional-locks status --porcelain", 250}, /* each directory is opened and closed */
		{"find", "find . -path ./.git -prune -o -newer d1 -print", 250},
		{"stat", "find d1 d2 -type f -exec stat {} + >/dev/null", 20},
	} {
		for range 3 { // also what is asked only when the times of the first answers are over
			e.in(e.at, look.script)
			time.Sleep(1100 * time.Millisecond)
		}
		before := e.s.Requests()
		e.in(e.at, look.script)
		got := e.s.Requests() - before
		t.Logf("%s of %d nodes: %d requests", look.name, nodes, got)
		if got > look.most {
			t.Errorf("%s: %d requests, more than %d", look.name, got, look.most)
		}
	}
}

// tree is all that one sees of a directory.
func (e *echoing) tree(at string) string {
	e.t.Helper()
	out, err := exec.Command("find", at, "-printf", "%P %y %m %s %T@ %n %l\n").CombinedOutput()
	if err != nil {
		e.t.Errorf("%v: %s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
