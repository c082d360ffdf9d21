package main

import (
	"bytes"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func chmod(c *c) {
	c.write("f", "")
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	for _, mode := range []uint32{0, 0o777, 0o400, 0o4755, 0o2755, 0o1644, 0o7777, 0o644} {
		c.ok(unix.Chmod(c.at("f"), mode))
		is(c, "mode", c.stat("f").Mode, unix.S_IFREG|mode)
		c.ok(unix.Chmod(c.at("d"), mode))
		is(c, "mode", c.stat("d").Mode, unix.S_IFDIR|mode)
	}
	c.ok(unix.Chmod(c.at("d"), 0o755))
	c.later("f", ctime, func() { c.ok(unix.Chmod(c.at("f"), 0o600)) })
	c.fails(unix.Chmod(c.at("none"), 0o600), unix.ENOENT)
	c.ok(unix.Symlink("f", c.at("link")))
	c.ok(unix.Chmod(c.at("link"), 0o640)) // the file behind it
	is(c, "mode", c.stat("f").Mode, unix.S_IFREG|0o640)
	// A program runs when it may, and only then.
	prog, err := os.ReadFile("/proc/self/exe")
	c.ok(err)
	c.ok(os.WriteFile(c.at("prog"), prog, 0o755))
	c.ok(unix.Access(c.at("prog"), unix.X_OK))
	c.ok(unix.Chmod(c.at("prog"), 0o644))
	c.fails(unix.Access(c.at("prog"), unix.X_OK), unix.EACCES) // also for root
}

// killpriv: who writes to a program may not keep its owner's rights. Root may.
func killpriv(c *c) {
	if os.Geteuid() == 0 {
		return
	}
	for _, change := range []func(int){
		func(fd int) { unix.Pwrite(fd, []byte("x"), 0) },
		func(fd int) { unix.Ftruncate(fd, 1) },
	} {
		c.write("prog", "text")
		c.ok(unix.Chmod(c.at("prog"), 0o6755))
		fd := c.open("prog", unix.O_WRONLY, 0)
		change(fd)
		unix.Close(fd)
		is(c, "mode", c.stat("prog").Mode, unix.S_IFREG|0o755)
	}
}

func truncate(c *c) {
	c.write("f", "0123456789")
	c.later("f", mtime, func() { c.ok(unix.Truncate(c.at("f"), 5)) })
	c.has("f", "01234")
	c.ok(unix.Truncate(c.at("f"), 8))
	c.has("f", "01234\x00\x00\x00")
	c.fails(unix.Truncate(c.at("f"), -1), unix.EINVAL)
	c.fails(unix.Truncate(c.at("none"), 0), unix.ENOENT)
	c.fails(unix.Truncate(c.dir, 0), unix.EISDIR)
	fd := c.open("f", unix.O_RDONLY, 0)
	c.fails(unix.Ftruncate(fd, 0), unix.EINVAL)
	unix.Close(fd)
	// What was cut off does not come back.
	fd = c.open("f", unix.O_RDWR, 0)
	c.ok(unix.Ftruncate(fd, 10000))
	_, err := unix.Pwrite(fd, bytes.Repeat([]byte("x"), 10000), 0)
	c.ok(err)
	c.ok(unix.Ftruncate(fd, 3))
	c.ok(unix.Ftruncate(fd, 10000))
	b := make([]byte, 10000)
	n, err := unix.Pread(fd, b, 0)
	c.ok(err)
	is(c, "bytes", n, 10000)
	is(c, "content", string(b), "xxx"+strings.Repeat("\x00", 9997))
	c.ok(unix.Ftruncate(fd, 5<<30))
	is(c, "size", c.fstat(fd).Size, 5<<30)
	unix.Close(fd)
}

func times(c *c) {
	c.write("f", "text")
	c.later("f", mtime, func() { c.write("f", "more") })
	c.later("f", ctime, func() { c.write("f", "text") })
	c.later(".", mtime, func() { c.write("new", "") })
	c.later(".", ctime, func() { c.ok(unix.Unlink(c.at("new"))) })
	fd := c.open("f", unix.O_RDWR|unix.O_APPEND, 0)
	c.later("f", mtime, func() {
		_, err := unix.Write(fd, []byte("appended"))
		c.ok(err)
	})
	unix.Close(fd)
	before := c.stat("f")
	c.has("f", "textappended") // which changes neither
	after := c.stat("f")
	is(c, "mtime", after.Mtim.Nano(), before.Mtim.Nano())
	is(c, "ctime", after.Ctim.Nano(), before.Ctim.Nano())
	// The file system's clock is near the system's.
	c.write("now", "")
	now := c.stat("now").Mtim
	if d := time.Since(time.Unix(now.Unix())); d < -2*time.Minute || d > 2*time.Minute {
		c.errorf("a new file is %v old", d)
	}
}

func setTimes(c *c) {
	c.write("f", "")
	set := func(a, m unix.Timespec, flags int, name string) {
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.at(name), []unix.Timespec{a, m}, flags))
	}
	ts := func(s, ns int64) unix.Timespec { return unix.Timespec{Sec: s, Nsec: ns} }
	c.later("f", ctime, func() { set(ts(1e9, 123456789), ts(2e9, 987654321), 0, "f") })
	st := c.stat("f")
	is(c, "atime", st.Atim.Nano(), 1e18+123456789)
	is(c, "mtime", st.Mtim.Nano(), 2e18+987654321)
	set(ts(0, unix.UTIME_OMIT), ts(5, 0), 0, "f")
	st = c.stat("f")
	is(c, "atime", st.Atim.Nano(), 1e18+123456789)
	is(c, "mtime", st.Mtim.Nano(), 5e9)
	set(ts(0, unix.UTIME_NOW), ts(0, unix.UTIME_OMIT), 0, "f")
	st = c.stat("f")
	is(c, "mtime", st.Mtim.Nano(), 5e9)
	if st.Atim.Sec < 1.5e9 {
		c.errorf("atime is %d", st.Atim.Sec)
	}
	set(ts(-1, 0), ts(1<<33, 0), 0, "f") // before 1970, after 2038
	st = c.stat("f")
	is(c, "atime", st.Atim.Sec, -1)
	is(c, "mtime", st.Mtim.Sec, 1<<33)
	c.ok(unix.Symlink("f", c.at("link")))
	set(ts(7, 0), ts(8, 0), unix.AT_SYMLINK_NOFOLLOW, "link")
	is(c, "mtime of a link", c.stat("link").Mtim.Sec, 8)
	is(c, "mtime", c.stat("f").Mtim.Sec, 1<<33)
	set(ts(7, 0), ts(8, 0), 0, ".")
	is(c, "mtime of a directory", c.stat(".").Mtim.Sec, 8)
}

func xattr(c *c) {
	c.write("f", "")
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	for _, name := range []string{"f", "d"} {
		p, b := c.at(name), make([]byte, 100)
		err := unix.Setxattr(p, "user.one", []byte("value"), 0)
		if err == unix.EOPNOTSUPP {
			return // a tmpfs of an older kernel
		}
		c.ok(err)
		n, err := unix.Getxattr(p, "user.one", b)
		c.ok(err)
		is(c, "value", string(b[:max(n, 0)]), "value")
		n, err = unix.Getxattr(p, "user.one", nil) // asks for the size
		c.ok(err)
		is(c, "size", n, 5)
		_, err = unix.Getxattr(p, "user.one", b[:2])
		c.fails(err, unix.ERANGE)
		_, err = unix.Getxattr(p, "user.none", b)
		c.fails(err, unix.ENODATA)
		c.fails(unix.Setxattr(p, "user.one", nil, unix.XATTR_CREATE), unix.EEXIST)
		c.fails(unix.Setxattr(p, "user.two", nil, unix.XATTR_REPLACE), unix.ENODATA)
		c.ok(unix.Setxattr(p, "user.two", nil, unix.XATTR_CREATE))
		n, err = unix.Listxattr(p, b)
		c.ok(err)
		for _, want := range []string{"user.one\x00", "user.two\x00"} {
			if !strings.Contains(string(b[:max(n, 0)]), want) {
				c.errorf("the list %q lacks %q", b[:max(n, 0)], want)
			}
		}
		_, err = unix.Listxattr(p, b[:3])
		c.fails(err, unix.ERANGE)
		c.ok(unix.Setxattr(p, "user.one", bytes.Repeat([]byte("v"), 1000), 0))
		n, err = unix.Getxattr(p, "user.one", nil)
		c.ok(err)
		is(c, "size", n, 1000)
		c.ok(unix.Removexattr(p, "user.one"))
		c.fails(unix.Removexattr(p, "user.one"), unix.ENODATA)
		c.fails(unix.Setxattr(p, "nothing.of.this.kind", nil, 0), unix.EOPNOTSUPP)
	}
}

func special(c *c) {
	c.ok(unix.Mkfifo(c.at("fifo"), 0o600))
	is(c, "kind", c.stat("fifo").Mode&unix.S_IFMT, unix.S_IFIFO)
	read := c.open("fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	write := c.open("fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
	_, err := unix.Write(write, []byte("through"))
	c.ok(err)
	b := make([]byte, 10)
	n, err := unix.Read(read, b)
	c.ok(err)
	is(c, "content", string(b[:max(n, 0)]), "through")
	unix.Close(read)
	unix.Close(write)

	// A socket's name is short, so it is bound from within.
	old, err := os.Getwd()
	c.ok(err)
	c.ok(os.Chdir(c.dir))
	defer os.Chdir(old)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	c.ok(err)
	c.ok(unix.Bind(s, &unix.SockaddrUnix{Name: "socket"}))
	c.ok(unix.Listen(s, 1))
	is(c, "kind", c.stat("socket").Mode&unix.S_IFMT, unix.S_IFSOCK)
	to, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	c.ok(err)
	c.ok(unix.Connect(to, &unix.SockaddrUnix{Name: "socket"}))
	unix.Close(s)
	c.fails(unix.Bind(to, &unix.SockaddrUnix{Name: "socket"}), unix.EADDRINUSE, unix.EINVAL)
	unix.Close(to)
}

func statfs(c *c) {
	var st unix.Statfs_t
	c.ok(unix.Statfs(c.dir, &st))
	if st.Bsize <= 0 || st.Blocks == 0 || st.Bavail > st.Blocks || st.Namelen != 255 {
		c.errorf("statfs says %+v", st)
	}
}
