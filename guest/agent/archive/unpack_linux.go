package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/btrfs"
	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

// ErrBad is in the error of [Unpack] for an archive that is no valid one.
var ErrBad = errors.New("bad archive")

// Unpack makes the tree of an uncompressed tar archive in the directory dir, which exists
// and is empty. Whatever the archive says, it makes nothing outside dir: package rootfs
// checks names, and the kernel resolves them beneath dir without following symbolic links.
//
// It sets the owners, modes, times and extended attributes that the caller may set; as
// root all of them. Holes of sparse files stay holes. st has the limits, and counts what
// was made; it is for one archive.
func Unpack(dir string, archive io.Reader, st *rootfs.State) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(root)
	u := &unpacker{root: root, asRoot: os.Geteuid() == 0, in: pax.NewReader(limit(archive, st)), pool: newExtractPool()}
	defer u.leave()
	err = u.entries(st)
	if err != nil {
		u.pool.fail(err)
	}
	if err := u.pool.end(); err != nil {
		return err
	}
	return u.finishDirs()
}

// entries unpacks the archive to its end.
func (u *unpacker) entries(st *rootfs.State) error {
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
		if err := u.pool.err(); err != nil {
			return err
		}
	}
	// The bytes after the end marker: the sender is done only when they are read.
	if err := u.in.Rest(); err != nil {
		return archiveError(err)
	}
	return st.Finish()
}

func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("%w: %w", ErrBad, err)
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
	pool   *extractPool
	root   int      // O_PATH
	parent *openDir // that path names, nil for none
	path   string   // relative to root
	asRoot bool

	dirs       []lateDir
	subvolumes int // made so far
}

// lateDir is what a directory gets when everything is unpacked: its time, which
// each new entry changes, and attributes that new entries would inherit.
type lateDir struct {
	name   string
	mod    time.Time
	xattrs map[string]string
}

// leave lets go of the parent.
func (u *unpacker) leave() {
	if u.parent != nil {
		u.parent.unref()
	}
	u.parent = nil
}

// beneath opens a path below the root without following symbolic links.
func (u *unpacker) beneath(name string, flags uint64) (int, error) {
	return unix.Openat2(u.root, name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// enter makes the directory of an entry the parent, making it where the archive
// did not name it.
func (u *unpacker) enter(dir string) error {
	if u.parent != nil && u.path == dir {
		return nil
	}
	u.await(dir)
	fd, err := u.beneath(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == unix.ENOENT {
		if err = u.mkdirAll(dir); err == nil {
			fd, err = u.beneath(dir, unix.O_PATH|unix.O_DIRECTORY)
		}
	}
	if err != nil {
		return err
	}
	u.leave()
	u.parent, u.path = newOpenDir(fd), dir
	return nil
}

// await returns when what the archive had before at a name, and at those of the
// directories above it, is made.
func (u *unpacker) await(name string) {
	for ; name != "."; name = path.Dir(name) {
		if u.pool.busy(name) {
			u.pool.barrier()
			return
		}
	}
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
		u.leave() // it may become one that gives its group away
		return u.finishDir(u.root, ".", ".", h)
	}
	if err := u.enter(path.Dir(name)); err != nil {
		return err
	}
	if u.pool.busy(name) {
		u.pool.barrier()
	}
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name, base, h)
	case tar.TypeLink:
		return u.hardLink(base, h)
	}
	e := fileEntry{dir: u.parent, base: base, h: h, asRoot: u.asRoot, chown: u.asRoot && (h.Uid != 0 || h.Gid != 0 || u.parent.gives)}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
		return u.pool.add(name, e, 0, u.in)
	}
	if h.Size > wholeFile || pax.Sparse(h) {
		return u.pool.addParts(e, u.in)
	}
	return u.pool.add(name, e, h.Size, u.in)
}

func (u *unpacker) dir(name, base string, h *tar.Header) error {
	err := u.mkdir(base, h)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstatat(u.parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := removeEntry(u.parent.fd, base); err != nil {
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
	return u.finishDir(u.parent.fd, base, name, h)
}

// maxSubvolumes is how many subvolumes an archive makes: a snapshot takes time for
// each. Further ones are directories.
const maxSubvolumes = 4096

// mkdir makes a directory, which is a subvolume again where the archive says so and
// the file system has them.
func (u *unpacker) mkdir(base string, h *tar.Header) error {
	if _, marked := h.PAXRecords[pax.XattrRecord(subvolumeMark)]; marked && u.asRoot && u.subvolumes < maxSubvolumes {
		err := btrfs.Create(fmt.Sprintf("/proc/self/fd/%d/%s", u.parent.fd, base))
		switch {
		case err == nil:
			u.subvolumes++
			return nil
		case errors.Is(err, unix.EEXIST):
			return unix.EEXIST
		}
	}
	return unix.Mkdirat(u.parent.fd, base, 0o700)
}

// hardLink links base to an entry unpacked before, in place of what stands there.
func (u *unpacker) hardLink(base string, h *tar.Header) error {
	target, err := rootfs.Clean(h.Linkname)
	if err != nil {
		return err
	}
	u.await(target)
	fd, err := u.beneath(target, unix.O_PATH|unix.O_NOFOLLOW)
	if err == unix.ENOENT {
		return fmt.Errorf("%w: its hard link's target %s does not come before it", ErrBad, h.Linkname)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Through /proc, because AT_EMPTY_PATH wants a capability more.
	source := fmt.Sprintf("/proc/self/fd/%d", fd)
	err = unix.Linkat(unix.AT_FDCWD, source, u.parent.fd, base, unix.AT_SYMLINK_FOLLOW)
	if err == unix.EEXIST {
		if err = removeEntry(u.parent.fd, base); err == nil {
			err = unix.Linkat(unix.AT_FDCWD, source, u.parent.fd, base, unix.AT_SYMLINK_FOLLOW)
		}
	}
	return err
}

// finishDir is finish for a directory, of which some has to wait.
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
	return setAttributes(dirfd, base, h, now, u.asRoot, u.asRoot)
}

// setAttributes sets owner, mode and attributes of base in dirfd.
func setAttributes(dirfd int, base string, h *tar.Header, xattrs map[string]string, asRoot, chown bool) error {
	if chown {
		if err := unix.Fchownat(dirfd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeSymlink { // which has no mode of its own
		if err := unix.Fchmodat(dirfd, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return err
		}
	}
	if len(xattrs) == 0 {
		return nil
	}
	return setXattrs(fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, base), xattrs, asRoot)
}

func setXattrs(path string, xattrs map[string]string, asRoot bool) error {
	for key, value := range xattrs {
		if err := xattrError(unix.Lsetxattr(path, key, []byte(value), 0), asRoot); err != nil {
			return fmt.Errorf("attribute %s: %w", key, err)
		}
	}
	return nil
}

// xattrError lets an ordinary user unpack an archive without the attributes
// that only root may set.
func xattrError(err error, asRoot bool) error {
	if !asRoot && (err == unix.EPERM || err == unix.ENOTSUP) {
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
			if err = setXattrs(fmt.Sprintf("/proc/self/fd/%d/.", fd), d.xattrs, u.asRoot); err == nil {
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
