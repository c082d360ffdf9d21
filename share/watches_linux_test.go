package share

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/share/echo"
)

// fakeWatcher is a system without changes.
type fakeWatcher struct {
	limit int
	added []string
	gone  int
}

func (f *fakeWatcher) add(_ int, name string) (watchKey, error) {
	if len(f.added)-f.gone >= f.limit {
		return "", errWatchLimit
	}
	f.added = append(f.added, name)
	return watchKey(fmt.Sprint(len(f.added))), nil
}
func (f *fakeWatcher) remove(int) error        { f.gone++; return nil }
func (f *fakeWatcher) removeAll() error        { f.gone = len(f.added); return nil }
func (f *fakeWatcher) read() ([]change, error) { return nil, os.ErrClosed }
func (f *fakeWatcher) close() error            { return nil }

// times are the seconds that an entry's answer promises for the entry and the attributes.
func times(entry []byte) [2]uint64 {
	le := binary.LittleEndian
	return [2]uint64{le.Uint64(entry[16:]), le.Uint64(entry[24:])}
}

// TestWatchLimit looks into more directories than may be watched.
func TestWatchLimit(t *testing.T) {
	c := newClient(t, Config{})
	for i := range 4 {
		os.MkdirAll(c.host(fmt.Sprint("d", i)), 0o755)
		c.hostWrite(fmt.Sprintf("d%d/f", i), "text")
	}
	c.s.unwatchAll()
	c.s.watches.watcher.close()
	c.s.reading.Wait()
	f := &fakeWatcher{limit: 3}
	c.s.watches.watcher = f
	c.s.setPromising(true)
	validity := func(i int) uint64 { return times(c.must(opLookup, c.lookup(1, fmt.Sprint("d", i)), "f"))[1] }
	// The root, and two more. The others have to wait until nobody relies on those.
	for i, want := range []uint64{60, 60, 1, 1} {
		if got := validity(i); got != want {
			t.Errorf("d%d/f is valid for %d s, want %d", i, got, want)
		}
	}
	for w := c.s.watches.root.next; w != &c.s.watches.root; w = w.next {
		w.until = time.Now().Add(-time.Second)
	}
	if got := validity(3); got != 60 {
		t.Errorf("d3/f is valid for %d s", got)
	}
	if got := validity(2); got != 60 {
		t.Errorf("d2/f is valid for %d s", got)
	}
	if got := validity(0); got != 1 { // the least recently used was the first to go
		t.Errorf("d0/f is valid for %d s", got)
	}
	os.Link(c.host("d3/f"), c.host("hard"))
	if got := validity(3); got != 1 {
		t.Errorf("a file with two names is valid for %d s", got)
	}
	c.s.setPromising(false)
	if got := validity(2); got != 1 {
		t.Errorf("without news, d2/f is valid for %d s", got)
	}
}

// TestEchoesChangeNothing has the agent's thread, and others, send requests that nobody has
// ordered. The thread gets a yes only to what has happened.
func TestEchoesChangeNothing(t *testing.T) {
	for _, writable := range []bool{false, true} {
		c := newClient(t, Config{Writable: writable})
		c.hostWrite("f", "text")
		os.Mkdir(c.host("d"), 0o755)
		f := c.lookup(1, "f")
		ours, theirs := net.Pipe()
		done := make(chan error)
		go func() { done <- c.s.ServeEchoes(t.Context(), ours) }()
		if err := echo.WriteNumber(theirs, 77); err != nil { // the client's requests are of thread 1
			t.Fatal(err)
		}
		for !c.s.Promising() {
			time.Sleep(time.Millisecond)
		}
		if !writable {
			c.fails(unix.EROFS, opUnlink, 1, "f")
		}
		c.pid = 77
		for op, values := range map[uint32][]any{
			opUnlink: {"f"}, opRmdir: {"d"}, opRename: {uint64(1), "f", "g"}, opRename2: {uint64(1), uint32(0), uint32(0), "f", "g"},
			opLink: {f, "g"}, opCreate: {uint32(2), uint32(0o600), uint32(0), uint32(0), "g"}, opTmpfile: {uint32(2), uint32(0o600), uint32(0), uint32(0), "g"},
			opFallocate: {uint64(1)}, opWrite: {uint64(1)}, opSetxattr: {uint32(1), uint32(0), "user.x", []byte("y")}, opRemovexattr: {"user.x"}, opCopyFileRange: {},
		} {
			c.fails(unix.EPERM, op, 1, values...)
		}
		for op, values := range map[uint32][]any{opMkdir: {uint32(0o755), uint32(0), "g"}, opMknod: {uint32(0o100600), uint32(0), uint32(0), uint32(0), "g"}, opSymlink: {"g", "x"}} {
			c.fails(unix.ENOENT, op, 1, values...) // as the agent has the kernel look a name up
		}
		c.must(opSetattr, f, setattr(setMode|setSize, 0o777, 0, 0, 0))
		p := c.must(opOpen, f, uint32(unix.O_WRONLY|unix.O_TRUNC), uint32(0))
		c.fails(unix.EPERM, opWrite, f, nodeOf(p), uint64(0), uint32(1), uint32(0), uint64(0), uint32(0), uint32(0), []byte("x"))
		theirs.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		entries, _ := os.ReadDir(c.dir)
		fi, err := os.Stat(c.host("f"))
		if err != nil || fi.Size() != 4 || fi.Mode() != 0o644 || len(entries) != 2 {
			t.Errorf("the host has %v, and %d entries: %v", fi, len(entries), err)
		}
	}
}

// FuzzFanotify decodes what the kernel never sends.
func FuzzFanotify(f *testing.F) {
	dir := f.TempDir()
	w, err := newFanotify()
	if err == nil {
		at, err := unix.Open(dir, unix.O_PATH, 0)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := w.add(at, "."); err == nil {
			os.WriteFile(dir+"/f", nil, 0o600)
			os.Rename(dir+"/f", dir+"/g")
			buf := make([]byte, 4096)
			if n, err := unix.Read(w.fd, buf); err == nil {
				f.Add(buf[:n])
			}
		}
		unix.Close(at)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range decodeFanotify(b, 1) {
			if c.what&lost != 0 && c.what != lost {
				t.Errorf("%+v", c)
			}
		}
	})
}
