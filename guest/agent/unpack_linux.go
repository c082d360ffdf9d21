package agent

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

var errBadArchive = errors.New("bad archive")

// unpack makes the tree of an uncompressed tar archive in the folder dir, which
// exists and is empty. Nothing is ever made outside dir, whatever the archive
// says: names are checked by package rootfs, and resolved by the kernel
// beneath dir without following symbolic links.
//
// Owners, modes, times and extended attributes are kept where the caller may
// set them; as root all are. Holes of sparse files stay holes. st has the
// limits, and is used up.
func unpack(dir string, archive io.Reader, st *rootfs.State) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(root)
	u := &unpacker{root: root, parent: -1, asRoot: os.Geteuid() == 0, in: pax.NewReader(limit(archive, st))}
	defer u.close()
	for {
		h, err := u.in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := rootfs.CheckHeader(h, st); err != nil {
			return err
		}
		if rootfs.Skip(h) {
			continue
		}
		if err := u.entry(h); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
	// The bytes after the end marker: the sender is done only when they are read.
	if err := u.in.Rest(); err != nil {
		return archiveError(err)
	}
	if err := st.Finish(); err != nil {
		return err
	}
	return u.finishDirs()
}

func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("%w: %w", errBadArchive, err)
	}
	return fmt.Errorf("read the archive: %w", err)
}

// limit bounds the archive's own bytes: headers, and the data of sparse files.
func limit(archive io.Reader, st *rootfs.State) io.Reader {
	most := st.MaxBytes
	if most == 0 {
		most = rootfs.DefaultMaxBytes
	}
	return &limited{archive, 2*most + 64<<20, most}
}

type limited struct {
	r    io.Reader
	left int64
	most int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, &rootfs.LimitError{What: "bytes", Limit: l.most}
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	return n, err
}

type unpacker struct {
	in     *pax.Reader
	root   int    // O_PATH
	parent int    // O_PATH of the folder that path names, -1 for none
	path   string // relative to root
	asRoot bool

	inherit    bool // some folder has the bit that gives its group to new files
	dirs       []lateDir
	subvolumes int // made so far
}

// lateDir is what a folder gets when everything is unpacked: its time, which
// each new entry changes, and attributes that new entries would inherit.
type lateDir struct {
	name   string
	mod    time.Time
	xattrs map[string]string
}

func (u *unpacker) close() {
	if u.parent >= 0 {
		unix.Close(u.parent)
	}
}

// beneath opens a path below the root without following symbolic links.
func (u *unpacker) beneath(name string, flags uint64) (int, error) {
	return unix.Openat2(u.root, name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// enter makes the folder of an entry the parent, making it where the archive
// did not name it.
func (u *unpacker) enter(dir string) error {
	if u.parent >= 0 && u.path == dir {
		return nil
	}
	fd, err := u.beneath(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == unix.ENOENT {
		if err = u.mkdirAll(dir); err == nil {
			fd, err = u.beneath(dir, unix.O_PATH|unix.O_DIRECTORY)
		}
	}
	if err != nil {
		return err
	}
	if u.parent >= 0 {
		unix.Close(u.parent)
	}
	u.parent, u.path = fd, dir
	return nil
}

func (u *unpacker) mkdirAll(dir string) error {
	at := "."
	for _, name := range strings.Split(dir, "/") {
		fd, err := u.beneath(at, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(fd, name, 0o755)
		unix.Close(fd)
		if err != nil && err != unix.EEXIST {
			return err
		}
		at = path.Join(at, name)
	}
	return nil
}

func (u *unpacker) entry(h *tar.Header) error {
	name, err := rootfs.Clean(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return u.finishDir(u.root, ".", ".", h)
	}
	if err := u.enter(path.Dir(name)); err != nil {
		return err
	}
	base := path.Base(name)
	if h.Typeflag == tar.TypeDir {
		return u.dir(name, base, h)
	}
	fd, err := u.create(base, h)
	if err == unix.EEXIST {
		// What stands there goes: it must neither be followed nor written into.
		if err = u.remove(base); err == nil {
			fd, err = u.create(base, h)
		}
	}
	switch {
	case err != nil:
		return err
	case fd >= 0:
		defer unix.Close(fd)
		return u.fill(fd, h)
	case h.Typeflag == tar.TypeLink:
		return nil
	}
	return u.finish(u.parent, base, h)
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

// create makes what is no folder, where nothing stands. It returns the
// descriptor of a regular file, else -1.
func (u *unpacker) create(base string, h *tar.Header) (fd int, err error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return unix.Openat(u.parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, createMode)
	case tar.TypeSymlink:
		return -1, unix.Symlinkat(h.Linkname, u.parent, base)
	case tar.TypeLink:
		return -1, u.hardLink(base, h)
	case tar.TypeChar:
		return -1, u.mknod(base, unix.S_IFCHR, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeFifo:
		return -1, u.mknod(base, unix.S_IFIFO, 0)
	}
	return -1, &rootfs.EntryError{Name: h.Name, Reason: fmt.Sprintf("is of the unknown type %q", h.Typeflag)}
}

func (u *unpacker) mknod(base string, kind uint32, dev int) error {
	err := unix.Mknodat(u.parent, base, kind|0o600, dev)
	if err == unix.EPERM && !u.asRoot {
		return fmt.Errorf("make a device as an ordinary user: %w", err)
	}
	return err
}

// remove deletes what is no folder; a folder in the place of something else
// makes the archive bad.
func (u *unpacker) remove(base string) error {
	err := unix.Unlinkat(u.parent, base, 0)
	if err == unix.EISDIR {
		return fmt.Errorf("%w: a folder stands in its place", errBadArchive)
	}
	if err == unix.ENOENT {
		return nil
	}
	return err
}

func (u *unpacker) dir(name, base string, h *tar.Header) error {
	err := u.mkdir(base, h)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstatat(u.parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := u.remove(base); err != nil {
				return err
			}
			err = u.mkdir(base, h)
		} else {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return u.finishDir(u.parent, base, name, h)
}

// maxSubvolumes is how many subvolumes an archive makes: a snapshot takes time for
// each. Further ones are folders.
const maxSubvolumes = 4096

// mkdir makes a folder, which is a subvolume again where the archive says so and
// the file system has them.
func (u *unpacker) mkdir(base string, h *tar.Header) error {
	if _, marked := h.PAXRecords[pax.XattrRecord(subvolumeMark)]; marked && u.asRoot && u.subvolumes < maxSubvolumes {
		err := createSubvolume(fmt.Sprintf("/proc/self/fd/%d/%s", u.parent, base))
		switch {
		case err == nil:
			u.subvolumes++
			return nil
		case errors.Is(err, unix.EEXIST):
			return unix.EEXIST
		}
	}
	return unix.Mkdirat(u.parent, base, 0o700)
}

// fill gives a new file its content and the rest.
func (u *unpacker) fill(fd int, h *tar.Header) error {
	if err := u.content(fd, h.Size); err != nil {
		return err
	}
	// By descriptor, and only what is not so already: there are many files.
	if u.asRoot && (h.Uid != 0 || h.Gid != 0 || u.inherit) {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if mode := uint32(h.Mode) & 0o7777; mode != createMode&^umask() {
		if err := unix.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	for key, value := range pax.Xattrs(h) {
		if err := u.xattrError(unix.Fsetxattr(fd, key, []byte(value), 0)); err != nil {
			return fmt.Errorf("attribute %s: %w", key, err)
		}
	}
	return setTime(fd, "", h.ModTime)
}

// content writes a file's bytes where they belong; the rest are holes.
func (u *unpacker) content(fd int, size int64) error {
	end := int64(0)
	for _, e := range u.in.Extents() {
		for end = e.Offset; end < e.Offset+e.Size; {
			p, err := u.in.Take(e.Offset + e.Size - end)
			if err != nil {
				return archiveError(err)
			}
			for len(p) > 0 {
				n, err := unix.Pwrite(fd, p, end)
				if err == unix.EINTR {
					continue
				}
				if err != nil {
					return err
				}
				p, end = p[n:], end+int64(n)
			}
		}
	}
	if end < size {
		return unix.Ftruncate(fd, size) // it ends in a hole
	}
	return nil
}

// hardLink links base to an entry unpacked before.
func (u *unpacker) hardLink(base string, h *tar.Header) error {
	target, err := rootfs.Clean(h.Linkname)
	if err != nil {
		return err
	}
	fd, err := u.beneath(target, unix.O_PATH|unix.O_NOFOLLOW)
	if err == unix.ENOENT {
		return fmt.Errorf("%w: its hard link's target %s does not come before it", errBadArchive, h.Linkname)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Through /proc, because AT_EMPTY_PATH wants a capability more.
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), u.parent, base, unix.AT_SYMLINK_FOLLOW)
}

// finishDir is finish for a folder, of which some has to wait.
func (u *unpacker) finishDir(dirfd int, base, name string, h *tar.Header) error {
	now, late := map[string]string{}, map[string]string{}
	for key, value := range pax.Xattrs(h) {
		if key == subvolumeMark {
			continue
		}
		if key == "system.posix_acl_default" || strings.HasPrefix(key, "btrfs.") {
			late[key] = value
		} else {
			now[key] = value
		}
	}
	u.dirs = append(u.dirs, lateDir{name, h.ModTime, late})
	u.inherit = u.inherit || h.Mode&unix.S_ISGID != 0
	return u.setAttributes(dirfd, base, h, now)
}

// finish sets owner, mode, attributes and time of what is neither a regular
// file nor a folder.
func (u *unpacker) finish(dirfd int, base string, h *tar.Header) error {
	if err := u.setAttributes(dirfd, base, h, pax.Xattrs(h)); err != nil {
		return err
	}
	return setTime(dirfd, base, h.ModTime)
}

func (u *unpacker) setAttributes(dirfd int, base string, h *tar.Header, xattrs map[string]string) error {
	if u.asRoot {
		if err := unix.Fchownat(dirfd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeSymlink { // which has no mode of its own
		if err := unix.Fchmodat(dirfd, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return err
		}
	}
	return u.setXattrs(fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, base), xattrs)
}

func (u *unpacker) setXattrs(path string, xattrs map[string]string) error {
	for key, value := range xattrs {
		if err := u.xattrError(unix.Lsetxattr(path, key, []byte(value), 0)); err != nil {
			return fmt.Errorf("attribute %s: %w", key, err)
		}
	}
	return nil
}

// xattrError lets an ordinary user unpack an archive without the attributes
// that only root may set.
func (u *unpacker) xattrError(err error) error {
	if !u.asRoot && (err == unix.EPERM || err == unix.ENOTSUP) {
		return nil
	}
	return err
}

// setTime sets the time of base in dirfd, or of dirfd itself where base is "".
func setTime(dirfd int, base string, mod time.Time) error {
	ts := unix.Timespec{Sec: mod.Unix(), Nsec: int64(mod.Nanosecond())}
	times := []unix.Timespec{ts, ts}
	if base == "" {
		return unix.UtimesNanoAt(dirfd, "", times, unix.AT_EMPTY_PATH)
	}
	return unix.UtimesNanoAt(dirfd, base, times, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) finishDirs() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		fd, err := u.beneath(d.name, unix.O_PATH|unix.O_DIRECTORY)
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			continue // a later entry took its place
		}
		if err == nil {
			if err = u.setXattrs(fmt.Sprintf("/proc/self/fd/%d/.", fd), d.xattrs); err == nil {
				err = setTime(fd, "", d.mod)
			}
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", d.name, err)
		}
	}
	return nil
}
