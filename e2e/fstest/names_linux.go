package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The cases follow POSIX.1-2024 and Linux' manual pages, section 2, of the calls.

func openFlags(c *c) {
	c.write("f", "text")
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	c.fails(c.try("f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), unix.EEXIST)
	c.fails(c.try("none", unix.O_RDONLY), unix.ENOENT)
	c.fails(c.try("none/f", unix.O_CREAT|unix.O_WRONLY), unix.ENOENT)
	c.fails(c.try("f/x", unix.O_RDONLY), unix.ENOTDIR)
	c.fails(c.try("f/x", unix.O_CREAT|unix.O_WRONLY), unix.ENOTDIR)
	c.fails(c.try("f", unix.O_DIRECTORY), unix.ENOTDIR)
	c.fails(c.try("d", unix.O_WRONLY), unix.EISDIR)
	c.fails(c.try("d", unix.O_RDWR), unix.EISDIR)
	c.fails(c.try("d", unix.O_CREAT|unix.O_RDONLY), unix.EISDIR)
	c.fails(c.try("d/", unix.O_CREAT|unix.O_WRONLY), unix.EISDIR)
	c.ok(c.try("f", unix.O_CREAT|unix.O_WRONLY)) // it is there, and stays as it is
	c.has("f", "text")
	c.ok(c.try("f", unix.O_TRUNC|unix.O_WRONLY))
	c.has("f", "")

	fd := c.open("f", unix.O_RDONLY, 0)
	_, err := unix.Write(fd, []byte("x"))
	c.fails(err, unix.EBADF)
	unix.Close(fd)
	fd = c.open("f", unix.O_WRONLY, 0)
	_, err = unix.Read(fd, make([]byte, 1))
	c.fails(err, unix.EBADF)
	unix.Close(fd)
	// The mode is of the file, not of this descriptor.
	fd = c.open("readonly", unix.O_CREAT|unix.O_RDWR, 0o444)
	_, err = unix.Write(fd, []byte("first"))
	c.ok(err)
	unix.Close(fd)
	c.has("readonly", "first")
	is(c, "mode", c.stat("readonly").Mode, unix.S_IFREG|0o444)
	old := unix.Umask(0o077)
	unix.Close(c.open("masked", unix.O_CREAT|unix.O_WRONLY, 0o666))
	unix.Umask(old)
	is(c, "mode", c.stat("masked").Mode, unix.S_IFREG|0o600)
}

func openLinks(c *c) {
	c.write("f", "text")
	c.ok(unix.Symlink("f", c.at("link")))
	c.ok(unix.Symlink("new", c.at("dangling")))
	c.ok(unix.Symlink("b", c.at("a")))
	c.ok(unix.Symlink("a", c.at("b")))
	c.fails(c.try("link", unix.O_NOFOLLOW), unix.ELOOP)
	c.ok(c.try("link", unix.O_NOFOLLOW|unix.O_PATH))
	c.fails(c.try("link", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), unix.EEXIST)
	c.fails(c.try("dangling", unix.O_RDONLY), unix.ENOENT)
	c.fails(c.try("dangling", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), unix.EEXIST)
	c.ok(c.try("dangling", unix.O_CREAT|unix.O_WRONLY))
	is(c, "mode", c.stat("new").Mode, unix.S_IFREG|0o644)
	c.fails(c.try("a", unix.O_RDONLY), unix.ELOOP)
	c.fails(c.try("link/", unix.O_RDONLY), unix.ENOTDIR)
}

func openUnnamed(c *c) {
	fd, err := unix.Open(c.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
	if err == unix.EOPNOTSUPP {
		return // the caller takes another way
	}
	c.ok(err)
	_, err = unix.Write(fd, []byte("unnamed"))
	c.ok(err)
	is(c, "links", c.fstat(fd).Nlink, 0)
	c.ok(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, c.at("named"), unix.AT_SYMLINK_FOLLOW))
	is(c, "links", c.fstat(fd).Nlink, 1)
	unix.Close(fd)
	c.has("named", "unnamed")
}

func names(c *c) {
	long := strings.Repeat("n", 255)
	c.write(long, "long")
	c.has(long, "long")
	c.ok(unix.Rename(c.at(long), c.at(long[:254]+"m")))
	c.ok(unix.Unlink(c.at(long[:254] + "m")))
	c.fails(c.try(long+"n", unix.O_CREAT|unix.O_WRONLY), unix.ENAMETOOLONG)
	c.fails(unix.Mkdir(c.at(long+"n"), 0o755), unix.ENAMETOOLONG)
	_, err := os.Lstat(c.at(long + "n"))
	c.fails(err, unix.ENAMETOOLONG)
	for _, name := range []string{"bytes\xff\xfe", "new\nline", " ", "-", "\\", "a:b", "CON", "ünï", "\u0301", "Upper", "upper"} {
		c.write(name, name)
	}
	entries, err := os.ReadDir(c.dir)
	c.ok(err)
	is(c, "number of names", len(entries), 11)
	for _, e := range entries {
		c.has(e.Name(), e.Name())
	}
	// A path of 4,095 bytes is the longest.
	deep := c.dir
	for len(deep)+201 < 4000 {
		deep += "/" + strings.Repeat("d", 200)
	}
	c.ok(os.MkdirAll(deep, 0o755))
	c.ok(os.WriteFile(deep+"/f", nil, 0o644))
}

func mkdir(c *c) {
	c.ok(unix.Mkdir(c.at("d"), 0o750))
	is(c, "mode", c.stat("d").Mode, unix.S_IFDIR|0o750)
	c.fails(unix.Mkdir(c.at("d"), 0o755), unix.EEXIST)
	c.fails(unix.Mkdir(c.at("none/d"), 0o755), unix.ENOENT)
	c.write("f", "")
	c.fails(unix.Mkdir(c.at("f"), 0o755), unix.EEXIST)
	c.fails(unix.Mkdir(c.at("f/d"), 0o755), unix.ENOTDIR)
	c.ok(unix.Symlink("nowhere", c.at("link")))
	c.fails(unix.Mkdir(c.at("link"), 0o755), unix.EEXIST)
	c.write("d/f", "")
	c.fails(unix.Rmdir(c.at("d")), unix.ENOTEMPTY, unix.EEXIST)
	c.ok(unix.Unlink(c.at("d/f")))
	c.fails(unix.Rmdir(c.at("d")+"/."), unix.EINVAL)
	c.fails(unix.Rmdir(c.at("d")+"/.."), unix.ENOTEMPTY, unix.EEXIST)
	c.later(".", mtime, func() { c.ok(unix.Rmdir(c.at("d"))) })
	c.fails(unix.Rmdir(c.at("d")), unix.ENOENT)
	c.fails(unix.Rmdir(c.at("f")), unix.ENOTDIR)
	c.fails(unix.Rmdir(c.at("link")), unix.ENOTDIR)
	c.later(".", mtime, func() { c.ok(unix.Mkdir(c.at("again"), 0o755)) })
	// A directory that is open outlives its name, and takes nothing more.
	fd := c.open("again", unix.O_DIRECTORY, 0)
	c.ok(unix.Rmdir(c.at("again")))
	_, err := unix.Openat(fd, "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
	c.fails(err, unix.ENOENT)
	unix.Close(fd)
}

func unlink(c *c) {
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	c.write("f", "")
	c.fails(unix.Unlink(c.at("d")), unix.EISDIR, unix.EPERM)
	c.fails(unix.Unlink(c.at("none")), unix.ENOENT)
	c.fails(unix.Unlink(c.at("f/x")), unix.ENOTDIR)
	c.ok(unix.Link(c.at("f"), c.at("g")))
	c.later("g", ctime, func() { c.ok(unix.Unlink(c.at("f"))) })
	is(c, "links", c.stat("g").Nlink, 1)
	_, err := os.Lstat(c.at("f"))
	c.fails(err, unix.ENOENT)
	c.ok(unix.Symlink("g", c.at("link")))
	c.ok(unix.Unlink(c.at("link")))
	c.has("g", "")
	c.later(".", mtime, func() { c.ok(unix.Unlink(c.at("g"))) })
}

func unlinkOpen(c *c) {
	fd := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	_, err := unix.Write(fd, []byte("one"))
	c.ok(err)
	c.ok(unix.Unlink(c.at("f")))
	st := c.fstat(fd)
	is(c, "links", st.Nlink, 0)
	_, err = unix.Pwrite(fd, []byte("two"), 3)
	c.ok(err)
	b := make([]byte, 10)
	n, err := unix.Pread(fd, b, 0)
	c.ok(err)
	is(c, "content", string(b[:max(n, 0)]), "onetwo")
	c.ok(unix.Ftruncate(fd, 2))
	c.ok(unix.Fchmod(fd, 0o600))
	is(c, "size", c.fstat(fd).Size, 2)
	is(c, "mode", c.fstat(fd).Mode, unix.S_IFREG|0o600)
	// A new file of that name is another one.
	c.write("f", "new")
	n, err = unix.Pread(fd, b, 0)
	c.ok(err)
	is(c, "content", string(b[:max(n, 0)]), "on")
	unix.Close(fd)
	c.has("f", "new")
}

func rename(c *c) {
	mv := func(from, to string) error { return unix.Rename(c.at(from), c.at(to)) }
	c.write("f", "f")
	c.write("g", "g")
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	c.ok(unix.Mkdir(c.at("e"), 0o755))
	c.write("e/x", "")
	c.fails(mv("none", "x"), unix.ENOENT)
	c.fails(mv("f", "none/x"), unix.ENOENT)
	c.fails(mv("f", "g/x"), unix.ENOTDIR)
	c.fails(mv("f", "d"), unix.EISDIR)
	c.fails(mv("d", "f"), unix.ENOTDIR)
	c.fails(mv("d", "e"), unix.ENOTEMPTY, unix.EEXIST)
	c.fails(mv("d", "d/sub"), unix.EINVAL)
	c.ok(mv("f", "f"))
	c.has("f", "f")
	ino := c.stat("f").Ino
	c.ok(mv("f", "g")) // over a file
	c.has("g", "f")
	is(c, "inode", c.stat("g").Ino, ino)
	_, err := os.Lstat(c.at("f"))
	c.fails(err, unix.ENOENT)
	c.ok(mv("e", "d")) // over an empty directory
	c.has("d/x", "")
	// Two names of one file: nothing happens.
	c.ok(unix.Link(c.at("g"), c.at("h")))
	c.ok(mv("g", "h"))
	c.has("g", "f")
	c.has("h", "f")
	// Across directories, and a link as such.
	c.ok(mv("g", "d/g"))
	c.has("d/g", "f")
	c.ok(unix.Symlink("d/g", c.at("link")))
	c.ok(mv("link", "moved"))
	c.has("moved", "f")
	c.later("d", mtime, func() { c.ok(mv("d/g", "back")) })
	c.later(".", mtime, func() { c.ok(mv("back", "d/g")) })
	// ".." of a directory follows it.
	c.ok(unix.Mkdir(c.at("e"), 0o755))
	c.ok(unix.Mkdir(c.at("e/sub"), 0o755))
	fd := c.open("e/sub", unix.O_DIRECTORY, 0)
	c.ok(mv("e/sub", "d/sub"))
	c.ok(unix.Faccessat(fd, "../x", unix.F_OK, 0))
	unix.Close(fd)
}

func renameFlags(c *c) {
	mv := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, c.at(from), unix.AT_FDCWD, c.at(to), flags)
	}
	c.write("a", "a")
	c.write("b", "b")
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	c.fails(mv("a", "b", unix.RENAME_NOREPLACE), unix.EEXIST)
	c.ok(mv("a", "b", unix.RENAME_EXCHANGE))
	c.has("a", "b")
	c.ok(mv("a", "d", unix.RENAME_EXCHANGE))
	c.has("d", "b")
	is(c, "kind", c.stat("a").Mode&unix.S_IFMT, unix.S_IFDIR)
	c.fails(mv("b", "none", unix.RENAME_EXCHANGE), unix.ENOENT)
	c.ok(mv("b", "new", unix.RENAME_NOREPLACE))
	c.has("new", "a")
}

func renameOpen(c *c) {
	c.write("old", "old")
	c.write("new", "new")
	fd := c.open("old", unix.O_RDWR, 0)
	moved := c.open("new", unix.O_RDWR, 0)
	c.ok(unix.Rename(c.at("new"), c.at("old"))) // as an editor saves
	b := make([]byte, 10)
	n, _ := unix.Pread(fd, b, 0)
	is(c, "content", string(b[:n]), "old")
	_, err := unix.Pwrite(fd, []byte("gone"), 0)
	c.ok(err)
	_, err = unix.Pwrite(moved, []byte("NEW"), 0)
	c.ok(err)
	c.ok(unix.Fchmod(moved, 0o600))
	unix.Close(fd)
	unix.Close(moved)
	c.has("old", "NEW")
	is(c, "mode", c.stat("old").Mode, unix.S_IFREG|0o600)
}

func link(c *c) {
	ln := func(from, to string) error { return unix.Link(c.at(from), c.at(to)) }
	c.write("f", "text")
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	c.later("f", ctime, func() { c.ok(ln("f", "g")) })
	is(c, "links", c.stat("f").Nlink, 2)
	is(c, "inode", c.stat("g").Ino, c.stat("f").Ino)
	c.write("g", "other")
	c.has("f", "other")
	c.ok(unix.Chmod(c.at("g"), 0o600))
	is(c, "mode", c.stat("f").Mode, unix.S_IFREG|0o600)
	c.fails(ln("f", "g"), unix.EEXIST)
	c.fails(ln("none", "h"), unix.ENOENT)
	c.fails(ln("d", "h"), unix.EPERM)
	c.fails(ln("f", "none/h"), unix.ENOENT)
	c.ok(unix.Symlink("f", c.at("sym")))
	c.ok(ln("sym", "sym2")) // the link itself
	is(c, "kind", c.stat("sym2").Mode&unix.S_IFMT, unix.S_IFLNK)
	c.ok(ln("f", "d/f"))
	is(c, "links", c.stat("f").Nlink, 3)
	c.ok(os.RemoveAll(c.at("d")))
	is(c, "links", c.stat("f").Nlink, 2)
}

func symlink(c *c) {
	target := strings.Repeat("t/", 2047) // 4,094 bytes
	for i, to := range []string{"f", "/absolute", "../up", "with space\n", "bytes\xff", target} {
		name := fmt.Sprintf("l%d", i)
		c.ok(unix.Symlink(to, c.at(name)))
		got, err := os.Readlink(c.at(name))
		c.ok(err)
		is(c, "target", got, to)
		is(c, "size", c.stat(name).Size, int64(len(to)))
		is(c, "kind", c.stat(name).Mode&unix.S_IFMT, unix.S_IFLNK)
	}
	c.fails(unix.Symlink("x", c.at("l0")), unix.EEXIST)
	c.fails(unix.Symlink("", c.at("empty")), unix.ENOENT)
	c.write("f", "")
	_, err := unix.Readlink(c.at("f"), make([]byte, 10))
	c.fails(err, unix.EINVAL)
	// A chain of links, and a directory behind one.
	c.ok(unix.Mkdir(c.at("d"), 0o755))
	c.ok(unix.Symlink("d", c.at("to-d")))
	c.write("to-d/x", "x")
	c.has("d/x", "x")
	c.ok(unix.Symlink(filepath.Join("to-d", "x"), c.at("to-x")))
	c.has("to-x", "x")
}
