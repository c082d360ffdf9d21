package main

import (
	"bytes"
	"fmt"
	"io"
	"path"
)

// File types of a cpio entry's mode.
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
	modeLink = 0o120000
)

// cpioWriter writes the "newc" archive that the kernel unpacks as its initial
// root file system. Owner, time and inode numbers are the same in each run, so
// equal content gives equal bytes.
type cpioWriter struct {
	w   io.Writer
	n   int64 // bytes written
	ino int
	err error // the first error; later calls do nothing
}

func (c *cpioWriter) dir(name string, perm uint32) { c.entry(name, modeDir|perm, 2, 0, 0, nil) }

func (c *cpioWriter) file(name string, perm uint32, data []byte) {
	c.entry(name, modeFile|perm, 1, 0, 0, data)
}

func (c *cpioWriter) symlink(name, target string) {
	c.entry(name, modeLink|0o777, 1, 0, 0, []byte(target))
}

func (c *cpioWriter) charDevice(name string, perm, major, minor uint32) {
	c.entry(name, modeChar|perm, 1, major, minor, nil)
}

// close ends the archive. Linux wants its length to be a multiple of 512.
func (c *cpioWriter) close() error {
	c.ino = -1
	c.entry("TRAILER!!!", 0, 1, 0, 0, nil)
	c.write(make([]byte, -c.n&511))
	return c.err
}

func (c *cpioWriter) entry(name string, mode uint32, nlink int, major, minor uint32, data []byte) {
	if c.err == nil && (name == "" || path.IsAbs(name) || path.Clean(name) != name) {
		c.err = fmt.Errorf("cpio: bad name %q", name)
	}
	c.ino++
	head := new(bytes.Buffer)
	head.WriteString("070701")
	for _, v := range []int{
		c.ino, int(mode), 0, 0, nlink, 0, // inode, mode, uid, gid, links, mtime
		len(data), 0, 0, int(major), int(minor), len(name) + 1, 0, // …, check sum
	} {
		fmt.Fprintf(head, "%08X", v)
	}
	head.WriteString(name + "\x00")
	c.write(head.Bytes())
	c.write(make([]byte, -c.n&3))
	c.write(data)
	c.write(make([]byte, -c.n&3))
}

func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.err = err
}
