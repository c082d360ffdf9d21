package archive

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

// openDir is an open directory that several workers make files in. The last one who
// uses it closes it.
type openDir struct {
	fd    int  // O_PATH
	gives bool // its group to new files
	users atomic.Int32
}

// newOpenDir takes fd over.
func newOpenDir(fd int) *openDir {
	f := &openDir{fd: fd}
	f.users.Store(1)
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	f.gives = err != nil || st.Mode&unix.S_ISGID != 0
	return f
}

func (f *openDir) ref() *openDir {
	f.users.Add(1)
	return f
}

// unref closes the directory where nobody else uses it.
func (f *openDir) unref() {
	if f.users.Add(-1) == 0 {
		unix.Close(f.fd)
	}
}

// fileEntry is an entry of an archive that is neither a directory nor a hard link. To make
// it, nothing is needed but its directory.
type fileEntry struct {
	dir    *openDir
	base   string
	h      *tar.Header
	asRoot bool // owners and all attributes can be set
	chown  bool // the owner is another than new files get
}

// make makes it, in place of what stands there. content writes the bytes of a
// regular file.
func (e *fileEntry) make(content func(fd int) error) error {
	fd, err := e.createAnew()
	if err != nil {
		return err
	}
	if fd < 0 {
		return e.finish()
	}
	defer unix.Close(fd)
	if err := content(fd); err != nil {
		return err
	}
	return e.finishFile(fd)
}

// createAnew is create in place of what stands there.
func (e *fileEntry) createAnew() (fd int, err error) {
	fd, err = e.create()
	if err == unix.EEXIST {
		// What stands there goes: it must neither be followed nor written into.
		if err = removeEntry(e.dir.fd, e.base); err == nil {
			fd, err = e.create()
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
func (e *fileEntry) create() (fd int, err error) {
	switch e.h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return unix.Openat(e.dir.fd, e.base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, createMode)
	case tar.TypeSymlink:
		return -1, unix.Symlinkat(e.h.Linkname, e.dir.fd, e.base)
	case tar.TypeChar:
		return -1, e.mknod(unix.S_IFCHR, int(unix.Mkdev(uint32(e.h.Devmajor), uint32(e.h.Devminor))))
	case tar.TypeFifo:
		return -1, e.mknod(unix.S_IFIFO, 0)
	}
	return -1, &rootfs.EntryError{Name: e.h.Name, Reason: fmt.Sprintf("is of the unknown type %q", e.h.Typeflag)}
}

func (e *fileEntry) mknod(kind uint32, dev int) error {
	err := unix.Mknodat(e.dir.fd, e.base, kind|0o600, dev)
	if err == unix.EPERM && !e.asRoot {
		return fmt.Errorf("make a device as an ordinary user: %w", err)
	}
	return err
}

// removeEntry deletes what is no directory; a directory in the place of something else
// makes the archive bad.
func removeEntry(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == unix.EISDIR {
		return fmt.Errorf("%w: a folder stands in its place", ErrBad)
	}
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// finishFile gives a file with its content the rest: by descriptor, and only
// what is not so already, because there are many files.
func (e *fileEntry) finishFile(fd int) error {
	if e.chown {
		if err := unix.Fchown(fd, e.h.Uid, e.h.Gid); err != nil {
			return err
		}
	}
	if mode := uint32(e.h.Mode) & 0o7777; mode != createMode&^umask() {
		if err := unix.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	for key, value := range pax.Xattrs(e.h) {
		if err := xattrError(unix.Fsetxattr(fd, key, []byte(value), 0), e.asRoot); err != nil {
			return fmt.Errorf("attribute %s: %w", key, err)
		}
	}
	return setTime(fd, "", e.h.ModTime)
}

// finish sets owner, mode, attributes and time of what is no regular file.
func (e *fileEntry) finish() error {
	if err := setAttributes(e.dir.fd, e.base, e.h, pax.Xattrs(e.h), e.asRoot, e.chown); err != nil {
		return err
	}
	return setTime(e.dir.fd, e.base, e.h.ModTime)
}
