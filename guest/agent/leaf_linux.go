package agent

import (
	"archive/tar"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

// folder is an open folder that several make files in.
type folder struct {
	fd    int  // O_PATH
	gives bool // its group to new files
	users atomic.Int32
}

// newFolder takes fd over.
func newFolder(fd int) *folder {
	f := &folder{fd: fd}
	f.users.Store(1)
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	f.gives = err != nil || st.Mode&unix.S_ISGID != 0
	return f
}

func (f *folder) hold() *folder {
	f.users.Add(1)
	return f
}

// release closes the folder where nobody else holds it.
func (f *folder) release() {
	if f.users.Add(-1) == 0 {
		unix.Close(f.fd)
	}
}

// leaf is what an archive has in a folder, but for folders and hard links. It
// depends on nothing but that folder.
type leaf struct {
	dir    *folder
	base   string
	h      *tar.Header
	asRoot bool // owners and all attributes can be set
	chown  bool // the owner is another than new files get
}

// make makes it, in place of what stands there. content writes the bytes of a
// regular file.
func (l *leaf) make(content func(fd int) error) error {
	fd, err := l.createAnew()
	if err != nil {
		return err
	}
	if fd < 0 {
		return l.finish()
	}
	defer unix.Close(fd)
	if err := content(fd); err != nil {
		return err
	}
	return l.finishFile(fd)
}

// createAnew is create in place of what stands there.
func (l *leaf) createAnew() (fd int, err error) {
	fd, err = l.create()
	if err == unix.EEXIST {
		// What stands there goes: it must neither be followed nor written into.
		if err = removeLeaf(l.dir.fd, l.base); err == nil {
			fd, err = l.create()
		}
	}
	return fd, err
}

// createMode is what most files have; nobody else sees them before they are done.
const createMode = 0o644

// umask is what the kernel takes away from the modes of new files. It is read
// where reading does not change it.
var umask = sync.OnceValue(func() uint32 {
	b, _ := os.ReadFile("/proc/self/status")
	_, line, _ := strings.Cut(string(b), "\nUmask:\t")
	line, _, _ = strings.Cut(line, "\n")
	n, err := strconv.ParseUint(line, 8, 32)
	if err != nil {
		return 0o7777 // unknown: no mode is taken for set
	}
	return uint32(n)
})

// create makes it where nothing stands. It returns the descriptor of a regular
// file, else -1.
func (l *leaf) create() (fd int, err error) {
	switch l.h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return unix.Openat(l.dir.fd, l.base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, createMode)
	case tar.TypeSymlink:
		return -1, unix.Symlinkat(l.h.Linkname, l.dir.fd, l.base)
	case tar.TypeChar:
		return -1, l.mknod(unix.S_IFCHR, int(unix.Mkdev(uint32(l.h.Devmajor), uint32(l.h.Devminor))))
	case tar.TypeFifo:
		return -1, l.mknod(unix.S_IFIFO, 0)
	}
	return -1, &rootfs.EntryError{Name: l.h.Name, Reason: fmt.Sprintf("is of the unknown type %q", l.h.Typeflag)}
}

func (l *leaf) mknod(kind uint32, dev int) error {
	err := unix.Mknodat(l.dir.fd, l.base, kind|0o600, dev)
	if err == unix.EPERM && !l.asRoot {
		return fmt.Errorf("make a device as an ordinary user: %w", err)
	}
	return err
}

// removeLeaf deletes what is no folder; a folder in the place of something else
// makes the archive bad.
func removeLeaf(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == unix.EISDIR {
		return fmt.Errorf("%w: a folder stands in its place", errBadArchive)
	}
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// finishFile gives a file with its content the rest: by descriptor, and only
// what is not so already, because there are many files.
func (l *leaf) finishFile(fd int) error {
	if l.chown {
		if err := unix.Fchown(fd, l.h.Uid, l.h.Gid); err != nil {
			return err
		}
	}
	if mode := uint32(l.h.Mode) & 0o7777; mode != createMode&^umask() {
		if err := unix.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	for key, value := range pax.Xattrs(l.h) {
		if err := xattrError(unix.Fsetxattr(fd, key, []byte(value), 0), l.asRoot); err != nil {
			return fmt.Errorf("attribute %s: %w", key, err)
		}
	}
	return setTime(fd, "", l.h.ModTime)
}

// finish sets owner, mode, attributes and time of what is no regular file.
func (l *leaf) finish() error {
	if err := setAttributes(l.dir.fd, l.base, l.h, pax.Xattrs(l.h), l.asRoot, l.chown); err != nil {
		return err
	}
	return setTime(l.dir.fd, l.base, l.h.ModTime)
}
