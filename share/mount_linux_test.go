package share_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/sharemount"
	"github.com/lsub/lsub/share"
)

// mount has this machine's own kernel mount what serve serves, and returns where.
func mount(t testing.TB, readOnly bool, serve func(net.Conn) error) (at string, root *os.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("this machine has no FUSE: ", err)
	}
	unix.Umask(0)
	at = t.TempDir()
	ours, theirs := pair(t)
	served := make(chan error, 1)
	go func() { served <- serve(ours) }()
	m, err := sharemount.Stream(theirs, at, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close() // it has a copy
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Serve()
	}()
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		m.Root.Close()
		<-ended
		if err := <-served; err != nil {
			t.Error(err)
		}
		ours.Close()
	})
	if !readOnly {
		neverPoll(t, at)
	}
	return at, m.Root
}

// neverPoll has the kernel learn that the server knows no poll. Otherwise Go's poller would
// ask the server, which is in the same process and waits for the poller.
func neverPoll(t testing.TB, at string) {
	t.Helper()
	name := filepath.Join(at, "poll")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unlink(name); err != nil {
		t.Fatal(err)
	}
}

// mountShare mounts a share, and returns where and its directory.
func mountShare(t testing.TB, cfg share.Config) (at, dir string) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := share.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	at, _ = mount(t, !cfg.Writable, func(conn net.Conn) error { return s.ServeStream(t.Context(), conn) })
	return at, cfg.Dir
}

func pair(t testing.TB) (a, b net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

// TestPOSIX does what programs do, through the kernel. Mapped files are tested in the VM: a
// page fault in the server's own process may wait for ever.
func TestPOSIX(t *testing.T) {
	at, dir := mountShare(t, share.Config{Writable: true})
	in := func(name string) string { return filepath.Join(at, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(name, text string) {
		t.Helper()
		if b, err := os.ReadFile(in(name)); err != nil || string(b) != text {
			t.Errorf("%s has %q, %v; want %q", name, b, err, text)
		}
	}

	t.Run("append", func(t *testing.T) {
		a, err := os.OpenFile(in("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		must(err)
		defer a.Close()
		host, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND, 0)
		must(err)
		defer host.Close()
		for range 3 {
			_, err = a.WriteString("g")
			must(err)
			_, err = host.WriteString("h")
			must(err)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "log")); string(b) != "ghghgh" {
			t.Errorf("the log is %q", b)
		}
	})
	t.Run("unlink while open", func(t *testing.T) {
		f, err := os.Create(in("gone"))
		must(err)
		defer f.Close()
		must(os.Remove(in("gone")))
		_, err = f.WriteString("text")
		must(err)
		b := make([]byte, 4)
		_, err = f.ReadAt(b, 0)
		must(err)
		fi, err := f.Stat()
		must(err)
		if string(b) != "text" || fi.Size() != 4 {
			t.Errorf("%q, %d bytes", b, fi.Size())
		}
	})
	t.Run("rename over an open file", func(t *testing.T) {
		must(os.WriteFile(in("old"), []byte("old"), 0o644))
		must(os.WriteFile(in("new"), []byte("new"), 0o644))
		f, err := os.Open(in("old"))
		must(err)
		defer f.Close()
		must(os.Rename(in("new"), in("old")))
		b, err := io.ReadAll(f)
		must(err)
		if string(b) != "old" {
			t.Errorf("read %q", b)
		}
		want("old", "new")
	})
	t.Run("O_TMPFILE and link", func(t *testing.T) {
		fd, err := unix.Open(at, unix.O_TMPFILE|unix.O_RDWR, 0o644)
		must(err)
		f := os.NewFile(uintptr(fd), "tmp")
		defer f.Close()
		_, err = f.WriteString("unnamed")
		must(err)
		must(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, in("named"), unix.AT_SYMLINK_FOLLOW))
		want("named", "unnamed")
	})
	t.Run("holes", func(t *testing.T) {
		f, err := os.Create(in("sparse"))
		must(err)
		defer f.Close()
		const end = 5 << 30 // over 4 GiB
		_, err = f.WriteAt([]byte("end"), end)
		must(err)
		if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err != nil || at == 0 || at > end {
			t.Errorf("data at %d, %v", at, err)
		}
		if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || at != 0 {
			t.Errorf("a hole at %d, %v", at, err)
		}
		var st unix.Stat_t
		must(unix.Fstat(int(f.Fd()), &st))
		if st.Size != end+3 || st.Blocks*512 > 1<<20 {
			t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
		}
		must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, end&^4095, 4096))
	})
	t.Run("copy_file_range", func(t *testing.T) {
		must(os.WriteFile(in("from"), bytes.Repeat([]byte("x"), 100<<10), 0o644))
		from, err := os.Open(in("from"))
		must(err)
		defer from.Close()
		to, err := os.Create(in("to"))
		must(err)
		defer to.Close()
		n, err := unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, 100<<10, 0)
		if err != nil || n == 0 {
			t.Errorf("copied %d, %v", n, err)
		}
	})
	t.Run("O_DIRECT", func(t *testing.T) {
		f, err := os.OpenFile(in("direct"), os.O_CREATE|os.O_RDWR|unix.O_DIRECT, 0o644)
		must(err)
		defer f.Close()
		m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		must(err)
		defer unix.Munmap(m)
		_, err = f.WriteAt(m, 0)
		must(err)
		_, err = f.ReadAt(m, 0)
		must(err)
	})
	t.Run("host changes are seen", func(t *testing.T) {
		must(os.WriteFile(in("seen"), []byte("one"), 0o644))
		want("seen", "one")
		must(os.WriteFile(filepath.Join(dir, "seen"), []byte("other"), 0o644))
		deadline := time.Now().Add(5 * time.Second) // one second is promised
		for {
			b, err := os.ReadFile(in("seen"))
			must(err)
			if string(b) == "other" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after 5 s, it has %q", b)
			}
		}
	})
	t.Run("flock between guest and host", func(t *testing.T) {
		f, err := os.Create(in("lock"))
		must(err)
		must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
		host, err := os.Open(filepath.Join(dir, "lock"))
		must(err)
		defer host.Close()
		if err := unix.Flock(int(host.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Errorf("locked twice: %v", err)
		}
		got := make(chan error, 1)
		go func() { got <- unix.Flock(int(host.Fd()), unix.LOCK_EX) }()
		f.Close()
		must(<-got)
	})
	t.Run("setattr", func(t *testing.T) {
		must(os.WriteFile(in("attr"), []byte("text"), 0o644))
		must(os.Chmod(in("attr"), 0o4711))
		when := time.Unix(1e9, 123456789)
		must(os.Chtimes(in("attr"), when, when))
		must(os.Truncate(in("attr"), 2))
		fi, err := os.Stat(in("attr"))
		must(err)
		if fi.Mode() != os.ModeSetuid|0o711 && fi.Mode() != 0o711 || fi.Size() != 2 {
			t.Errorf("%v, %d bytes", fi.Mode(), fi.Size())
		}
		must(os.Symlink("attr", in("l")))
		must(unix.UtimesNanoAt(unix.AT_FDCWD, in("l"), []unix.Timespec{{Sec: 5}, {Sec: 6}}, unix.AT_SYMLINK_NOFOLLOW))
		if fi, err := os.Lstat(in("l")); err != nil || fi.ModTime().Unix() != 6 {
			t.Errorf("%v, %v", fi, err)
		}
	})
	t.Run("exchange", func(t *testing.T) {
		must(os.WriteFile(in("x"), []byte("x"), 0o644))
		must(os.WriteFile(in("y"), []byte("y"), 0o644))
		must(unix.Renameat2(unix.AT_FDCWD, in("x"), unix.AT_FDCWD, in("y"), unix.RENAME_EXCHANGE))
		want("x", "y")
		want("y", "x")
		if err := unix.Renameat2(unix.AT_FDCWD, in("x"), unix.AT_FDCWD, in("y"), unix.RENAME_NOREPLACE); err != unix.EEXIST {
			t.Error(err)
		}
	})
}

// TestModel compares random operations on the share with the same ones on a directory.
func TestModel(t *testing.T) {
	at, _ := mountShare(t, share.Config{Writable: true, MaxFDs: 16})
	model := t.TempDir()
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	name := func() string { return fmt.Sprintf("d%d/f%d", r.IntN(3), r.IntN(5)) }
	both := func(what string, f func(root string) (string, error)) {
		t.Helper()
		a, aerr := f(at)
		b, berr := f(model)
		if a != b || (aerr == nil) != (berr == nil) || aerr != nil && unwrap(aerr) != unwrap(berr) {
			t.Fatalf("%s: %.100q, %v; a directory gives %.100q, %v", what, a, aerr, b, berr)
		}
	}
	for range 1500 {
		n, m := name(), name()
		data := strings.Repeat(fmt.Sprint(r.IntN(10)), r.IntN(20000))
		off, size := int64(r.IntN(30000)), int64(r.IntN(30000))
		switch r.IntN(9) {
		case 0:
			both("mkdir "+n, func(root string) (string, error) { return "", os.MkdirAll(filepath.Dir(filepath.Join(root, n)), 0o755) })
		case 1:
			both("write "+n, func(root string) (string, error) {
				return "", os.WriteFile(filepath.Join(root, n), []byte(data), 0o644)
			})
		case 2, 3:
			both("read "+n, func(root string) (string, error) {
				b, err := os.ReadFile(filepath.Join(root, n))
				return string(b), err
			})
		case 4:
			both("rename "+n+" "+m, func(root string) (string, error) {
				return "", os.Rename(filepath.Join(root, n), filepath.Join(root, m))
			})
		case 5:
			both("remove "+n, func(root string) (string, error) { return "", os.Remove(filepath.Join(root, n)) })
		case 6:
			both("truncate "+n, func(root string) (string, error) { return "", os.Truncate(filepath.Join(root, n), size) })
		case 7:
			both("write at "+n, func(root string) (string, error) {
				f, err := os.OpenFile(filepath.Join(root, n), os.O_RDWR, 0)
				if err != nil {
					return "", err
				}
				defer f.Close()
				_, err = f.WriteAt([]byte(data), off)
				return "", err
			})
		case 8:
			both("link "+n+" "+m, func(root string) (string, error) { return "", os.Link(filepath.Join(root, n), filepath.Join(root, m)) })
		}
	}
}

func unwrap(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// TestRelay replaces the server while files are written.
func TestRelay(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var server net.Conn
	epoch := uint32(0)
	kill := func() {
		mu.Lock()
		defer mu.Unlock()
		if server != nil {
			server.Close()
		}
	}
	var serving sync.WaitGroup
	connect := func(context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		s, err := share.Open(share.Config{Dir: dir, Writable: true, Epoch: epoch})
		if err != nil {
			return nil, err
		}
		epoch++
		ours, theirs := pair(t)
		server = theirs
		serving.Go(func() {
			s.ServeStream(t.Context(), theirs)
			theirs.Close()
			s.Close()
		})
		return ours, nil
	}
	at, _ := mount(t, false, func(conn net.Conn) error {
		defer serving.Wait() // only now does nothing connect any more
		return share.Relay(t.Context(), conn, connect)
	})
	failed := 0
	for i := range 60 {
		if i%10 == 5 {
			go kill()
		}
		for j := range 20 {
			name := filepath.Join(at, fmt.Sprint("f", i, "-", j))
			if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
				failed++ // in progress, or the directory's node was the earlier server's
			}
		}
	}
	t.Log(failed, "writes failed")
	// All is as before, without another mount.
	deadline := time.Now().Add(10 * time.Second)
	for {
		if err := os.WriteFile(filepath.Join(at, "last"), []byte("text"), 0o644); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "last")); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}
