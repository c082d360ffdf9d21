package share

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFiles(t *testing.T) {
	c := newClient(t, Config{Writable: true, GuestUID: 1000, GuestGID: 1000})
	node, fh := c.create(1, "a", 0o640)
	c.write(node, fh, 0, "hello")
	if got := c.read(node, fh); got != "hello" {
		t.Errorf("read %q", got)
	}
	e := c.must(opLookup, 1, "a")
	if nodeOf(e) != node || modeOf(e) != unix.S_IFREG|0o640 || sizeOf(e) != 5 || ownersOf(e) != [2]uint32{1000, 1000} {
		t.Errorf("node %d, mode %o, size %d, owners %v", nodeOf(e), modeOf(e), sizeOf(e), ownersOf(e))
	}
	if c.lookup(1, "missing") != 0 {
		t.Error("a missing name has a node")
	}
	c.must(opMkdir, 1, uint32(0o755), uint32(0), "d")
	d := c.lookup(1, "d")
	c.must(opRename2, 1, d, uint32(0), uint32(0), "a", "b")
	if got := c.read(node, fh); got != "hello" {
		t.Errorf("after its rename: %q", got)
	}
	c.must(opLink, 1, node, "hard")
	if got := c.lookup(1, "hard"); got != node {
		t.Errorf("a hard link is node %d, its file %d", got, node)
	}
	p := c.must(opSymlink, 1, "link", "../outside")
	if got := c.must(opReadlink, nodeOf(p)); string(got) != "../outside" {
		t.Errorf("the link leads to %q", got)
	}
	c.fails(unix.ENXIO, opOpen, nodeOf(p), uint32(0), uint32(0))
	c.fails(unix.ENOTEMPTY, opRmdir, 1, "d")
	c.fails(unix.ENOTDIR, opLookup, node, "x")
	c.fails(unix.ESTALE, opGetattr, 12345, uint32(0), uint32(0), uint64(0))
	c.fails(unix.EBADF, opRead, node, uint64(999), uint64(0), uint32(1), uint32(0), uint64(0), uint32(0), uint32(0))
	c.fails(unix.EPERM, opMknod, 1, uint32(unix.S_IFCHR|0o600), uint32(0x103), uint32(0), uint32(0), "null")
	c.must(opMknod, 1, uint32(unix.S_IFIFO|0o600), uint32(0), uint32(0), uint32(0), "fifo")
	c.fails(unix.ENXIO, opOpen, c.lookup(1, "fifo"), uint32(0), uint32(0))
	c.fails(unix.ENOSYS, 9999, 1)
}

func TestNamesStayInside(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	c.hostWrite("f", "")
	for _, name := range []string{"", ".", "..", "/", "a/b", "../f", "/etc/passwd", strings.Repeat("x/", 300)} {
		c.fails(unix.EINVAL, opLookup, 1, name)
		c.fails(unix.EINVAL, opUnlink, 1, name)
		c.fails(unix.EINVAL, opMkdir, 1, uint32(0o755), uint32(0), name)
		c.fails(unix.EINVAL, opSymlink, 1, name, "t")
		c.fails(unix.EINVAL, opRename2, 1, uint64(1), uint32(0), uint32(0), "f", name)
		c.fails(unix.EINVAL, opRename2, 1, uint64(1), uint32(0), uint32(0), name, "g")
		c.fails(unix.EINVAL, opCreate, 1, uint32(unix.O_RDWR), uint32(0o644), uint32(0), uint32(0), name)
		c.fails(unix.EINVAL, opLink, 1, c.lookup(1, "f"), name)
	}
	long := strings.Repeat("x", 256)
	c.fails(unix.ENAMETOOLONG, opLookup, 1, long)
	c.fails(unix.ENAMETOOLONG, opMkdir, 1, uint32(0o755), uint32(0), long)
	for _, name := range []string{strings.Repeat("x", 255), "\xff\xfe not UTF-8", "a\nb", "-rf"} {
		node, fh := c.create(1, name, 0o600)
		c.close(node, fh)
		if !slices.Contains(c.list(1, 4096, true), name) {
			t.Errorf("%q is not listed", name)
		}
	}
}

func TestReadOnly(t *testing.T) {
	c := newClient(t, Config{})
	c.hostWrite("f", "text")
	f := c.lookup(1, "f")
	for op := range changes {
		c.fails(unix.EROFS, op, f, make([]byte, 200))
	}
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC} {
		c.fails(unix.EROFS, opOpen, f, uint32(flags), uint32(0))
	}
	if got := c.read(f, c.open(f, unix.O_RDONLY)); got != "text" {
		t.Errorf("read %q", got)
	}
}

// TestFewDescriptors holds more files open, and knows more, than there are descriptors.
func TestFewDescriptors(t *testing.T) {
	const files, limit = 600, 24
	c := newClient(t, Config{Writable: true, MaxFDs: limit})
	before := openFDs(t)
	type open struct{ node, fh uint64 }
	var all []open
	for i := range files {
		c.must(opMkdir, 1, uint32(0o755), uint32(0), fmt.Sprint("d", i))
		d := c.lookup(1, fmt.Sprint("d", i))
		node, fh := c.create(d, "f", 0o600)
		c.write(node, fh, 0, fmt.Sprint(i))
		all = append(all, open{node, fh})
	}
	for i, o := range all {
		if got := c.read(o.node, o.fh); got != fmt.Sprint(i) {
			t.Fatalf("file %d has %q", i, got)
		}
	}
	if now := openFDs(t); now > before+limit {
		t.Errorf("%d descriptors are open, %d were", now, before)
	}
	// A file that loses its name keeps its contents for those who have it open.
	for i := range 3 {
		c.must(opUnlink, c.lookup(1, fmt.Sprint("d", i)), "f")
	}
	node, fh := c.create(1, "locked", 0o600)
	c.write(node, fh, 0, "secret")
	c.must(opSetattr, node, setattr(setMode, 0, 0, 0, 0))
	for _, o := range all[10:] { // uses all descriptors
		c.read(o.node, o.fh)
	}
	// They can be opened once more, as by /proc/self/fd.
	if got := c.read(all[0].node, c.open(all[0].node, unix.O_RDONLY)); got != "0" {
		t.Errorf("opened once more, the unlinked file has %q", got)
	}
	for i, o := range all[:3] {
		if got := c.read(o.node, o.fh); got != fmt.Sprint(i) {
			t.Errorf("the unlinked file %d has %q", i, got)
		}
	}
	if got := c.read(node, fh); got != "secret" {
		t.Errorf("the file without rights has %q", got)
	}
	for _, o := range all {
		c.close(o.node, o.fh)
		c.call(opForget, o.node, uint64(1))
	}
}

// setattr is a request to change attributes.
// TestNoDescriptors has the host give fewer descriptors than it has promised.
func TestNoDescriptors(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	for i := range 300 {
		c.create(1, fmt.Sprint("f", i), 0o600)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(openFDs(t)), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		node, fh := c.create(1, fmt.Sprint("g", i), 0o600)
		c.write(node, fh, 0, "text")
	}
}

func setattr(valid, mode, uid, gid uint32, size uint64) []byte {
	return fields(valid, uint32(0), uint64(0), size, uint64(0), uint64(0), uint64(0), uint64(0), uint32(0), uint32(0), uint32(0), mode, uint32(0), uid, gid, uint32(0))
}

func TestHostReplaces(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	c.hostWrite("f", "old")
	f := c.lookup(1, "f")
	c.hostWrite("g", "new")
	if err := os.Rename(c.host("g"), c.host("f")); err != nil {
		t.Fatal(err)
	}
	c.fails(unix.ESTALE, opGetattr, f, uint32(0), uint32(0), uint64(0))
	c.fails(unix.ESTALE, opOpen, f, uint32(0), uint32(0))
	again := c.lookup(1, "f")
	if again == f {
		t.Error("another file has the same node")
	}
	if got := c.read(again, c.open(again, 0)); got != "new" {
		t.Errorf("read %q", got)
	}
}

// TestLinkRaces has the host swap directories for links that lead out, all the time.
func TestLinkRaces(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("outside"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Config{Writable: true, MaxFDs: 8})
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	must(os.Mkdir(c.host("d"), 0o755))
	c.hostWrite("d/f", "inside")
	must(os.Symlink(outside, c.host("l")))
	must(os.Symlink(filepath.Join(outside, "f"), c.host("lf")))
	c.hostWrite("rf", "inside")
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
			}
			must(unix.Renameat2(unix.AT_FDCWD, c.host("d"), unix.AT_FDCWD, c.host("l"), unix.RENAME_EXCHANGE))
			must(unix.Renameat2(unix.AT_FDCWD, c.host("rf"), unix.AT_FDCWD, c.host("lf"), unix.RENAME_EXCHANGE))
		}
	}()
	reads := 0
	for i := range 3000 {
		for _, dir := range []string{"d", ""} {
			parent, name := uint64(1), "rf"
			if dir != "" {
				e, errno := c.call(opLookup, 1, dir)
				if errno != 0 || nodeOf(e) == 0 {
					continue
				}
				parent, name = nodeOf(e), "f"
			}
			e, errno := c.call(opLookup, parent, name)
			if errno != 0 || nodeOf(e) == 0 {
				continue
			}
			if i%3 == 0 {
				c.call(opCreate, parent, uint32(unix.O_RDWR), uint32(0o644), uint32(0), uint32(0), name)
			}
			p, errno := c.call(opOpen, nodeOf(e), uint32(0), uint32(0))
			if errno != 0 {
				continue
			}
			reads++
			if got := c.read(nodeOf(e), nodeOf(p)); got != "inside" {
				t.Fatalf("read %q", got)
			}
			c.close(nodeOf(e), nodeOf(p))
		}
	}
	close(done)
	<-stopped
	if reads == 0 {
		t.Error("nothing was read")
	}
	t.Log(reads, "reads")
}

func TestLargeDirectory(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	want := []string{".", ".."}
	for i := range 5000 {
		name := fmt.Sprintf("%s%d", strings.Repeat("n", i%200), i)
		want = append(want, name)
		c.hostWrite(name, "")
	}
	slices.Sort(want)
	for _, plus := range []bool{false, true} {
		got := c.list(1, 4096, plus)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("plus %v: %d names, want %d", plus, len(got), len(want))
		}
	}
}

// TestInit checks that a guest that mounts anew finds nothing of the earlier mount.
func TestInit(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	node, fh := c.create(1, "a", 0o600)
	c.must(opInit, 0, uint32(7), uint32(41), uint32(1<<17), ^uint32(0), make([]byte, 48))
	c.fails(unix.EBADF, opRead, node, fh, uint64(0), uint32(1), uint32(0), uint64(0), uint32(0), uint32(0))
	c.fails(unix.ESTALE, opGetattr, node, uint32(0), uint32(0), uint64(0))
	if again := c.lookup(1, "a"); again <= node {
		t.Errorf("node %d, the earlier one was %d", again, node)
	}
	c.fails(unix.EPROTO, opInit, 0, uint32(7), uint32(41), uint32(1<<17), uint32(0), make([]byte, 48))
	c.fails(unix.EPROTO, opInit, 0, uint32(7), uint32(20), uint32(1<<17), ^uint32(0), make([]byte, 48))
}

func TestOwners(t *testing.T) {
	c := newClient(t, Config{Writable: true, GuestUID: 1000, GuestGID: 1000})
	node, fh := c.create(1, "a", 0o600)
	c.close(node, fh)
	c.must(opSetattr, node, setattr(setUID|setGID, 0, 1000, 1000, 0))
	c.fails(unix.EPERM, opSetattr, node, setattr(setUID, 0, 0, 0, 0))
	c.fails(unix.EPERM, opSetattr, node, setattr(setGID, 0, 0, 33, 0))

	if err := unix.Setxattr(c.host("a"), ownerXattr, make([]byte, 16), 0); err == unix.EOPNOTSUPP {
		t.Skip("no extended attributes here")
	}
	c = newClient(t, Config{Dir: c.dir, Writable: true, GuestUID: 1000, GuestGID: 1000, Metadata: true})
	c.uid = 33
	node, fh = c.create(1, "b", 0o600)
	c.close(node, fh)
	e := c.must(opLookup, 1, "b")
	if ownersOf(e) != [2]uint32{33, 33} {
		t.Errorf("owners %v", ownersOf(e))
	}
	c.must(opSetattr, node, setattr(setUID, 0, 5, 0, 0))
	if e := c.must(opLookup, 1, "b"); ownersOf(e) != [2]uint32{5, 33} {
		t.Errorf("owners %v", ownersOf(e))
	}
	e = c.must(opMknod, 1, uint32(unix.S_IFCHR|0o600), uint32(0x103), uint32(0), uint32(0), "null")
	if modeOf(e) != unix.S_IFCHR|0o600 || binary.LittleEndian.Uint32(e[40+76:]) != 0x103 {
		t.Errorf("mode %o", modeOf(e))
	}
	if fi, err := os.Lstat(c.host("null")); err != nil || !fi.Mode().IsRegular() {
		t.Errorf("on the host: %v, %v", fi, err)
	}
	// Our own attribute is not the guest's.
	c.fails(unix.ENODATA, opGetxattr, node, uint32(100), uint32(0), ownerXattr)
	c.fails(unix.EOPNOTSUPP, opSetxattr, node, uint32(1), uint32(0), ownerXattr, []byte("x"))
	c.fails(unix.EOPNOTSUPP, opSetxattr, node, uint32(1), uint32(0), "security.capability", []byte("x"))
	c.must(opSetxattr, node, uint32(3), uint32(0), "user.a", []byte("xyz"))
	if got := c.must(opGetxattr, node, uint32(100), uint32(0), "user.a"); string(got) != "xyz" {
		t.Errorf("got %q", got)
	}
	if got := c.must(opListxattr, node, uint32(100), uint32(0)); string(got) != "user.a\x00" {
		t.Errorf("listed %q", got)
	}
	c.fails(unix.ERANGE, opGetxattr, node, uint32(2), uint32(0), "user.a")
}

func TestLocks(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	node, fh := c.create(1, "a", 0o600)
	lock := func(fh, owner uint64, kind, flags uint32) []any {
		return []any{fh, owner, uint64(0), uint64(1<<63 - 1), kind, uint32(0), flags, uint32(0)}
	}
	c.must(opSetlk, node, lock(fh, 1, unix.F_WRLCK, 0)...)
	c.fails(unix.EAGAIN, opSetlk, node, lock(fh, 2, unix.F_RDLCK, 0)...)
	host, err := os.OpenFile(c.host("a"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	all := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(host.Fd(), unix.F_OFD_SETLK, &all); err != unix.EAGAIN {
		t.Errorf("the host locks what the guest has locked: %v", err)
	}
	c.must(opSetlk, node, lock(fh, 1, unix.F_UNLCK, 0)...)
	if err := unix.FcntlFlock(host.Fd(), unix.F_OFD_SETLK, &all); err != nil {
		t.Error(err)
	}
	c.fails(unix.EAGAIN, opSetlk, node, lock(fh, 1, unix.F_WRLCK, 0)...)
	if p := c.must(opGetlk, node, lock(fh, 1, unix.F_RDLCK, 0)...); binary.LittleEndian.Uint32(p[16:]) != unix.F_WRLCK {
		t.Errorf("the lock of the host is not seen: %x", p)
	}
	free := unix.Flock_t{Type: unix.F_UNLCK}
	unix.FcntlFlock(host.Fd(), unix.F_OFD_SETLK, &free)

	c.must(opSetlk, node, lock(fh, 1, unix.F_WRLCK, lockFlock)...)
	if err := unix.Flock(int(host.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EAGAIN {
		t.Errorf("flock: %v", err)
	}
	other := c.open(node, unix.O_RDWR)
	c.fails(unix.EAGAIN, opSetlk, node, lock(other, 2, unix.F_WRLCK, lockFlock)...)
	c.close(node, fh) // with all its locks
	if err := unix.Flock(int(host.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("flock after the guest's close: %v", err)
	}
	// One that waits gives up.
	done := make(chan unix.Errno, 1)
	go func() {
		_, errno := c.call(opSetlkw, node, lock(other, 3, unix.F_WRLCK, lockFlock)...)
		done <- errno
	}()
	for {
		c.s.CancelWaits()
		select {
		case errno := <-done:
			if errno != unix.EINTR {
				t.Errorf("a wait that was ended: %v", errno)
			}
			return
		default:
		}
	}
}

func TestSetuid(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	node, fh := c.create(1, "a", 0o600)
	for _, drop := range []func(){
		func() {
			c.must(opWrite, node, fh, uint64(0), uint32(1), uint32(writeKillSuid), uint64(0), uint32(0), uint32(0), []byte("x"))
		},
		func() { c.must(opSetattr, node, setattr(setSize|setKillSuidGid, 0, 0, 0, 3)) },
		func() { c.must(opOpen, node, uint32(unix.O_WRONLY|unix.O_TRUNC), uint32(openKillSuid)) },
	} {
		c.must(opSetattr, node, setattr(setMode, 0o6755, 0, 0, 0))
		drop()
		if m := modeOf(c.must(opLookup, 1, "a")); m&0o6000 != 0 {
			t.Errorf("mode %o", m)
		}
	}
}

func TestKeepCache(t *testing.T) {
	c := newClient(t, Config{})
	c.hostWrite("f", "text")
	f := c.lookup(1, "f")
	keeps := func() bool {
		p := c.must(opOpen, f, uint32(0), uint32(0))
		return binary.LittleEndian.Uint32(p[8:])&openKeepCache != 0
	}
	if keeps() {
		t.Error("kept at the first open")
	}
	if !keeps() {
		t.Error("not kept without a change")
	}
	if err := os.WriteFile(c.host("f"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if keeps() {
		t.Error("kept after a change")
	}
}

func TestShort(t *testing.T) {
	c := newClient(t, Config{Writable: true})
	for op := range operations {
		if op == opDestroy || op == opSyncfs || op == opStatfs || op == opReadlink || op == opOpendir || op == opRemovexattr || hasNoAnswer(op) || op == opFsyncdir {
			continue
		}
		for n := range 4 {
			if _, errno := c.call(op, 1, make([]byte, n)); errno != unix.EINVAL {
				t.Errorf("request %d with %d bytes: %v", op, n, errno)
			}
		}
	}
	if n := c.s.Handle(t.Context(), [][]byte{make([]byte, 39)}, [][]byte{make([]byte, 100)}); n != 0 {
		t.Errorf("%d bytes of an answer to no request", n)
	}
	// No room for the answer.
	m := c.message(opLookup, 1, fields("x"))
	if n := c.s.Handle(t.Context(), [][]byte{m}, [][]byte{make([]byte, 20)}); n != outHeaderLen {
		t.Errorf("%d bytes", n)
	}
	if n := c.s.Handle(t.Context(), [][]byte{m}, nil); n != 0 {
		t.Errorf("%d bytes", n)
	}
}
