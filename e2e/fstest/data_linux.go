package main

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

func readWrite(c *c) {
	fd := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, []byte("end"), 5<<30) // over 4 GiB
	c.ok(err)
	is(c, "written", n, 3)
	b := make([]byte, 10)
	n, err = unix.Pread(fd, b, 5<<30)
	c.ok(err)
	is(c, "content", string(b[:max(n, 0)]), "end")
	n, err = unix.Pread(fd, b, 6<<30)
	c.ok(err)
	is(c, "read behind the end", n, 0)
	_, err = unix.Pread(fd, b, -1)
	c.fails(err, unix.EINVAL)
	c.ok(unix.Ftruncate(fd, 0))
	n, err = unix.Writev(fd, [][]byte{[]byte("one"), nil, []byte("two")})
	c.ok(err)
	is(c, "written", n, 6)
	n, err = unix.Preadv(fd, [][]byte{b[:2], b[2:7]}, 0)
	c.ok(err)
	is(c, "content", string(b[:max(n, 0)]), "onetwo")
	// Across the borders of pages and of requests.
	data := make([]byte, 3<<20+123)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	for at := 0; at < len(data); {
		n, err := unix.Pwrite(fd, data[at:min(len(data), at+999_983)], int64(at))
		if err != nil {
			c.ok(err)
			return
		}
		at += n
	}
	got, err := os.ReadFile(c.at("f"))
	c.ok(err)
	is(c, "equal", bytes.Equal(got, data), true)
}

// appends: each write goes to the end, whoever writes.
func appends(c *c) {
	var wg sync.WaitGroup
	for i := range 4 {
		fd := c.open("log", unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
		wg.Go(func() {
			defer unix.Close(fd)
			for range 50 {
				unix.Write(fd, bytes.Repeat([]byte{byte('a' + i)}, 10))
			}
		})
	}
	wg.Wait()
	b, err := os.ReadFile(c.at("log"))
	c.ok(err)
	is(c, "size", len(b), 4*50*10)
	for i := 0; i+10 <= len(b); i += 10 {
		if !bytes.Equal(b[i:i+10], bytes.Repeat(b[i:i+1], 10)) {
			c.errorf("torn at %d: %q", i, b[i:i+10])
		}
	}
}

func direct(c *c) {
	fd, err := unix.Open(c.at("f"), unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o644)
	if err == unix.EINVAL {
		return // a tmpfs of an older kernel
	}
	c.ok(err)
	defer unix.Close(fd)
	m, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	c.ok(err)
	defer unix.Munmap(m)
	copy(m, "direct")
	n, err := unix.Pwrite(fd, m, 0)
	c.ok(err)
	is(c, "written", n, len(m))
	cached := c.open("f", unix.O_RDWR, 0)
	b := make([]byte, 6)
	_, err = unix.Pread(cached, b, 0)
	c.ok(err)
	is(c, "content", string(b), "direct")
	_, err = unix.Pwrite(cached, []byte("cached"), 0)
	c.ok(err)
	unix.Close(cached)
	clear(m)
	_, err = unix.Pread(fd, m, 0)
	c.ok(err)
	is(c, "content", string(m[:6]), "cached")
}

func holes(c *c) {
	fd := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	defer unix.Close(fd)
	const mib = 1 << 20
	_, err := unix.Pwrite(fd, []byte("a"), 4*mib)
	c.ok(err)
	_, err = unix.Pwrite(fd, []byte("b"), 8*mib)
	c.ok(err)
	st := c.fstat(fd)
	is(c, "size", st.Size, 8*mib+1)
	if st.Blocks*512 > 4*mib {
		c.errorf("%d blocks", st.Blocks)
	}
	at, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	c.ok(err)
	if at > 4*mib {
		c.errorf("data at %d", at)
	}
	at, err = unix.Seek(fd, 5*mib, unix.SEEK_HOLE)
	c.ok(err)
	if at < 5*mib || at >= 8*mib+1 {
		c.errorf("a hole at %d", at)
	}
	at, err = unix.Seek(fd, 8*mib, unix.SEEK_HOLE)
	c.ok(err)
	is(c, "the last hole", at, 8*mib+1)
	_, err = unix.Seek(fd, 9*mib, unix.SEEK_DATA)
	c.fails(err, unix.ENXIO)
	b := []byte("x")
	_, err = unix.Pread(fd, b, 6*mib)
	c.ok(err)
	is(c, "in a hole", b[0], 0)
}

func fallocate(c *c) {
	fd := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	defer unix.Close(fd)
	err := unix.Fallocate(fd, 0, 0, 1<<20)
	if err == unix.EOPNOTSUPP {
		return
	}
	c.ok(err)
	is(c, "size", c.fstat(fd).Size, 1<<20)
	c.ok(unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20))
	is(c, "size", c.fstat(fd).Size, 1<<20)
	data := bytes.Repeat([]byte("x"), 64<<10)
	_, err = unix.Pwrite(fd, data, 0)
	c.ok(err)
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 16<<10, 16<<10); err != unix.EOPNOTSUPP {
		c.ok(err)
		clear(data[16<<10 : 32<<10])
	}
	got := make([]byte, len(data))
	_, err = unix.Pread(fd, got, 0)
	c.ok(err)
	is(c, "equal", bytes.Equal(got, data), true)
	c.fails(unix.Fallocate(fd, 0, 0, 0), unix.EINVAL)
	read := c.open("f", unix.O_RDONLY, 0)
	c.fails(unix.Fallocate(read, 0, 0, 1), unix.EBADF)
	unix.Close(read)
}

func copyRange(c *c) {
	data := bytes.Repeat([]byte("0123456789"), 20<<10)
	c.write("from", string(data))
	from, to := c.open("from", unix.O_RDONLY, 0), c.open("to", unix.O_CREAT|unix.O_RDWR, 0o644)
	defer unix.Close(from)
	defer unix.Close(to)
	c.has("to", "") // what the cache knows must not stay
	for left := len(data); left > 0; {
		n, err := unix.CopyFileRange(from, nil, to, nil, left, 0)
		if err != nil || n == 0 {
			c.errorf("copy: %d, %v", n, err)
			return
		}
		left -= n
	}
	c.has("to", string(data))
	in, out := int64(5), int64(0)
	n, err := unix.CopyFileRange(from, &in, to, &out, 5, 0)
	c.ok(err)
	is(c, "copied", n, 5)
	b := make([]byte, 5)
	_, err = unix.Pread(to, b, 0)
	c.ok(err)
	is(c, "content", string(b), "56789")
	c.ok(unix.Ftruncate(to, 0))
	unix.Seek(from, 0, 0)
	unix.Seek(to, 0, 0)
	n, err = unix.Sendfile(to, from, nil, 1000)
	c.ok(err)
	c.has("to", string(data[:max(n, 0)]))
}

func mmap(c *c) {
	c.write("f", "0123456789")
	fd := c.open("f", unix.O_RDWR, 0)
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		c.ok(err)
		return
	}
	is(c, "content", string(m[:10]), "0123456789")
	is(c, "behind the end", m[10], 0)
	m[0] = 'X'
	b := make([]byte, 10)
	_, err = unix.Pread(fd, b, 0)
	c.ok(err)
	is(c, "read", string(b), "X123456789")
	_, err = unix.Pwrite(fd, []byte("Y"), 1)
	c.ok(err)
	is(c, "mapped", string(m[:2]), "XY")
	m[2] = 'Z'
	c.ok(unix.Msync(m, unix.MS_SYNC))
	c.ok(unix.Munmap(m))
	unix.Close(fd)
	c.has("f", "XYZ3456789")
	// A private one changes nothing, and one of a file that is open for reading cannot write.
	fd = c.open("f", unix.O_RDONLY, 0)
	m, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	c.ok(err)
	m[0] = '-'
	c.ok(unix.Munmap(m))
	_, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.fails(err, unix.EACCES)
	c.has("f", "XYZ3456789")
	// A mapping outlives descriptor and name.
	m, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	c.ok(err)
	unix.Close(fd)
	c.ok(unix.Unlink(c.at("f")))
	is(c, "mapped", string(m[:3]), "XYZ")
	c.ok(unix.Munmap(m))
}

// mmapShared has two processes count in one mapped page.
func mmapShared(c *c) {
	const times = 2000
	c.write("f", string(make([]byte, 4096)))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { c.other(nil, countArg, c.at("f"), fmt.Sprint(times)) })
	}
	wg.Wait()
	fd := c.open("f", unix.O_RDONLY, 0)
	b := make([]byte, 8)
	_, err := unix.Pread(fd, b, 0)
	c.ok(err)
	unix.Close(fd)
	is(c, "count", *(*uint64)(unsafe.Pointer(&b[0])), 2*times)
}

func syncs(c *c) {
	fd := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	_, err := unix.Write(fd, []byte("text"))
	c.ok(err)
	c.ok(unix.Fsync(fd))
	c.ok(unix.Fdatasync(fd))
	c.ok(unix.Syncfs(fd))
	c.ok(unix.SyncFileRange(fd, 0, 4, 0))
	unix.Close(fd)
	dir := c.open(".", unix.O_DIRECTORY, 0)
	c.ok(unix.Fsync(dir))
	unix.Close(dir)
}

func readdir(c *c) {
	const files = 1000 // several requests
	for i := range files {
		fd := c.open(fmt.Sprint("f", i), unix.O_CREAT|unix.O_WRONLY, 0o600)
		unix.Close(fd)
	}
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	c.ok(unix.Symlink("f0", c.at("l")))
	entries, err := os.ReadDir(c.dir)
	c.ok(err)
	is(c, "entries", len(entries), files+2)
	kinds := map[string]os.FileMode{"d": os.ModeDir, "l": os.ModeSymlink}
	for _, e := range entries {
		if e.Type() != kinds[e.Name()] {
			c.errorf("%s is a %v", e.Name(), e.Type())
		}
	}
	// A second reading from the start sees what is new.
	f, err := os.Open(c.dir)
	c.ok(err)
	defer f.Close()
	_, err = f.Readdirnames(10)
	c.ok(err)
	c.write("new", "")
	_, err = f.Seek(0, 0)
	c.ok(err)
	names, err := f.Readdirnames(-1)
	c.ok(err)
	is(c, "names", len(names), files+3)
}

// readdirChanges: what is there all the time is seen once, whatever else comes and goes.
func readdirChanges(c *c) {
	const files = 300
	for i := range files {
		unix.Close(c.open(fmt.Sprint("stays", i), unix.O_CREAT|unix.O_WRONLY, 0o600))
		unix.Close(c.open(fmt.Sprint("goes", i), unix.O_CREAT|unix.O_WRONLY, 0o600))
	}
	f, err := os.Open(c.dir)
	c.ok(err)
	defer f.Close()
	seen := map[string]int{}
	for i := 0; ; i++ {
		names, err := f.Readdirnames(64)
		for _, n := range names {
			seen[n]++
		}
		if err != nil {
			break
		}
		for j := i * 15; j < min(i*15+15, files); j++ {
			c.ok(unix.Unlink(c.at(fmt.Sprint("goes", j))))
			unix.Close(c.open(fmt.Sprint("comes", j), unix.O_CREAT|unix.O_WRONLY, 0o600))
		}
	}
	for i := range files {
		if n := seen[fmt.Sprint("stays", i)]; n != 1 {
			c.errorf("stays%d is seen %d times", i, n)
		}
	}
}
