// Command manifest runs inside a distro. "manifest list DIR" prints all that a
// file system says of each file below DIR, in order; "manifest make DIR" makes
// a tree there that has everything a file system can hold.
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: manifest list|make DIR")
		os.Exit(2)
	}
	run := list
	if os.Args[1] == "make" {
		run = build
	}
	if err := run(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "manifest:", err)
		os.Exit(1)
	}
}

// list prints a line for each file. Files of several names have a number in
// common, in the order of their first names. It stays on dir's file system, with
// the subvolumes in it.
func list(dir string) error {
	out := bufio.NewWriter(os.Stdout)
	type inode struct{ dev, ino uint64 }
	links := map[inode]int{}
	var top unix.Stat_t
	if err := unix.Lstat(dir, &top); err != nil {
		return err
	}
	here := map[uint64]bool{top.Dev: true} // each subvolume has a number of its own
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		subvolume := !here[st.Dev] && st.Ino == subvolumeInode
		if here[st.Dev] = here[st.Dev] || subvolume; !here[st.Dev] {
			return filepath.SkipDir
		}
		fmt.Fprintf(out, "%q mode=%o owner=%d:%d mtime=%d.%09d", path, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if subvolume {
			fmt.Fprint(out, " subvolume")
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			id := inode{st.Dev, st.Ino}
			if links[id] == 0 {
				links[id] = len(links) + 1
			}
			fmt.Fprintf(out, " links=%d", st.Nlink)
			if st.Nlink > 1 {
				fmt.Fprintf(out, " file=%d", links[id])
			}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if err := content(out, path, st.Size); err != nil {
				return err
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, " to=%q", target)
		case unix.S_IFCHR, unix.S_IFBLK:
			fmt.Fprintf(out, " device=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if err := attributes(out, path); err != nil {
			return err
		}
		fmt.Fprintln(out)
		return nil
	})
	return errors.Join(err, out.Flush())
}

// content prints the size, where the data is, and the sum of it.
func content(out io.Writer, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(out, " size=%d data=", size)
	sum := sha256.New()
	for at := int64(0); at < size; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "[%d,%d)", start, end)
		if _, err := io.Copy(sum, io.NewSectionReader(f, start, end-start)); err != nil {
			return err
		}
		at = end
	}
	fmt.Fprintf(out, " sha256=%x", sum.Sum(nil))
	return nil
}

func attributes(out io.Writer, path string) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return err
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, " %q=%q", name, buf[:n])
	}
	return nil
}

// build makes the tree, with odd times last.
func build(dir string) error {
	b := &builder{dir: dir}
	b.do(os.Mkdir(dir, 0o755))
	b.names()
	b.sparse()
	b.special()
	b.subvolumes()
	b.attributes()
	b.times()
	return b.err
}

type builder struct {
	dir string
	err error
}

func (b *builder) do(err error)          { b.err = errors.Join(b.err, err) }
func (b *builder) at(name string) string { return filepath.Join(b.dir, name) }
func (b *builder) file(name, body string, mode uint32) {
	b.do(os.WriteFile(b.at(name), []byte(body), 0o600))
	b.do(unix.Chmod(b.at(name), mode))
}

func (b *builder) names() {
	deep := strings.Repeat("a folder of some length/", 150)
	b.do(os.MkdirAll(b.at(deep), 0o711))
	b.file(deep+"the last one \xff", "deep", 0o640)
	b.file("empty", "", 0)
	b.file("latin \xe9\xff\xfe", "x", 0o644)
	b.file("new\nline\ttab\"quote\\", "x", 0o644)
	b.file(strings.Repeat("n", 255), "long", 0o644)
	b.file(strings.Repeat("m", 100), "exactly", 0o644)
	b.file(strings.Repeat("o", 99)+"é", "utf-8", 0o644)
	b.file(" leading", "x", 0o644)
	b.file("-rf", "x", 0o644)
	b.file("a\\b", "x", 0o644)
	b.do(os.Mkdir(b.at("many"), 0o755))
	for i := range 2000 {
		b.file(fmt.Sprintf("many/%d", i), strings.Repeat("y", i), 0o644)
	}
	b.file("big", strings.Repeat("0123456789abcdef", 200<<10), 0o4755)
	b.file("setgid", "x", 0o2755)
	b.do(os.Mkdir(b.at("sticky"), 0o755))
	b.do(unix.Chmod(b.at("sticky"), 0o7777))
	b.do(os.Link(b.at("big"), b.at("many/big too")))
	b.do(os.Link(b.at("big"), b.at(deep+"big three")))
	b.do(os.Symlink(strings.Repeat("t", 4000), b.at("long link")))
	b.do(os.Symlink("../../..//etc/\xffpasswd", b.at("odd link")))
	b.do(os.Link(b.at("odd link"), b.at("odd link too")))
	b.do(os.Lchown(b.at("odd link"), 4_000_000_000, 65534))
	b.do(os.Chown(b.at("empty"), 2_097_152, 2_097_151))
}

func (b *builder) sparse() {
	island := func(name string, size int64, at ...int64) {
		f, err := os.Create(b.at(name))
		if err != nil {
			b.do(err)
			return
		}
		for _, p := range at {
			_, err := f.WriteAt([]byte(fmt.Sprintf("island at %d", p)), p)
			b.do(err)
		}
		b.do(errors.Join(f.Truncate(size), f.Close()))
	}
	island("sparse 3 GiB", 3<<30, 0, 1<<20, 1<<30+5, 3<<30-20)
	island("sparse 20 GiB", 20<<30, 12<<30)
	island("hole at the end", 10<<20, 0)
	island("hole at the start", 8<<20, 8<<20-30)
	island("nothing but a hole", 5<<20)
	island("odd size", 1<<20+13, 70_000)
	var many []int64
	for i := range int64(700) {
		many = append(many, i<<16)
	}
	island("many islands", 100<<20, many...)
	f, err := os.Create(b.at("zeros that are data"))
	if err == nil {
		_, err = f.Write(make([]byte, 300_000))
		err = errors.Join(err, f.Close())
	}
	b.do(err)
	f, err = os.Create(b.at("room that was allocated"))
	if err == nil {
		_, err = f.Write([]byte("start"))
		err = errors.Join(err, unix.Fallocate(int(f.Fd()), 0, 0, 1<<20), f.Close())
	}
	b.do(err)
}

func (b *builder) special() {
	b.do(unix.Mkfifo(b.at("fifo"), 0o620))
	b.do(unix.Mknod(b.at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	b.do(unix.Mknod(b.at("whiteout"), unix.S_IFCHR, 0))
	b.do(os.Link(b.at("null"), b.at("null too")))
}

// subvolumeInode is the root of every subvolume of btrfs.
const subvolumeInode = 256

func (b *builder) subvolumes() {
	for _, name := range []string{"subvolume", "subvolume/below"} {
		args := make([]byte, 4096) // struct btrfs_ioctl_vol_args: 8 bytes of no use here, and the name
		copy(args[8:], filepath.Base(name))
		dir, err := os.Open(filepath.Dir(b.at(name)))
		if err != nil {
			b.do(err)
			return
		}
		// Sound: args is as long as the request says, and lives until the call returns.
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), 0x5000940e, uintptr(unsafe.Pointer(&args[0]))) // BTRFS_IOC_SUBVOL_CREATE
		dir.Close()
		if errno != 0 {
			b.do(fmt.Errorf("subvolume %s: %w", name, errno))
			return
		}
		b.file(name+"/file", name, 0o640)
		b.do(os.Link(b.at(name+"/file"), b.at(name+"/again")))
		b.do(unix.Chmod(b.at(name), 0o2711))
	}
}

func (b *builder) attributes() {
	set := func(name, key, value string) {
		if err := unix.Lsetxattr(b.at(name), key, []byte(value), 0); err != nil {
			b.do(fmt.Errorf("%s: %s: %w", name, key, err))
		}
	}
	b.file("attributes", "x", 0o750)
	set("attributes", "user.text", "value")
	set("attributes", "user.none", "")
	set("attributes", "user.binary", "\x00=\n\xff%3D")
	set("attributes", "user.odd=name%25", "v")
	set("attributes", "user.long", strings.Repeat("v", 8000))
	set("attributes", "trusted.overlay.opaque", "y")
	set("attributes", "security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	set("odd link", "trusted.of.a.link", "v")
	set("fifo", "trusted.of.a.fifo", "v")
	set(".", "user.of.the.folder", "v")
	const none = "\xff\xff\xff\xff"
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00" + none + "\x02\x00\x06\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00" + none +
		"\x08\x00\x04\x00\x07\x00\x00\x00" + "\x10\x00\x05\x00" + none + "\x20\x00\x01\x00" + none
	set("attributes", "system.posix_acl_access", acl)
	b.do(os.Mkdir(b.at("inherited"), 0o755))
	b.file("inherited/before", "has no ACL, since it was there before", 0o644)
	b.do(os.Mkdir(b.at("inherited/folder before"), 0o755))
	set("inherited", "system.posix_acl_default", acl)
	b.file("inherited/after", "has one", 0o644)
	b.do(os.Mkdir(b.at("inherited/folder after"), 0o755))
}

func (b *builder) times() {
	for name, t := range map[string]time.Time{
		"empty": time.Unix(0, 0), "big": time.Unix(1_700_000_000, 123_456_789), "long link": time.Unix(1, 1), "setgid": time.Unix(-5, 999_999_999),
		"fifo": time.Unix(1<<33, 5), "many": time.Unix(999_999_999, 999_999_999), "null": time.Unix(-1, 0), ".": time.Unix(1_234_567_890, 1),
	} {
		ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
		b.do(unix.UtimesNanoAt(unix.AT_FDCWD, b.at(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}
