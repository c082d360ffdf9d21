package share_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/sharemount"
	"github.com/lsub/lsub/share"
)

// echoing is a share on this machine whose changes are told. The host's part is played by
// other processes: the server knows its own changes by its process, which is this one.
type echoing struct {
	t       testing.TB
	s       *share.Server
	at, dir string
	root    *os.File
	stop    func() // ends the connection of the echoes
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
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = e.dir
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
				{"exec 3>>d/f; echo again >&3; sleep 0.3; echo last >&3; sleep 0.3", []string{"modify d/f", "modify d/f", "close d/f"}},
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
				{"mv sub/s gone; rm gone", []string{"delete sub/s"}}, // the root is watched too: it is moved
			} {
				if step.host == "mv sub/s gone; rm gone" {
					step.want = []string{"from sub/s"}
				}
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
