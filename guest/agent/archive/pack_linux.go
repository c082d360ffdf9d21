package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/btrfs"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

// Pack writes the tree in the directory dir, which must not change meanwhile, as a tar
// archive of which [Unpack] makes the same tree: with every byte, hole, mode, owner,
// time, extended attribute and hard link. Owners are numbers only: names would mean
// other users wherever the archive goes.
//
// send sends the archive's frames, in order, each with room for its header at the front,
// see [guest.Writer.SendBuffer]. Pack leaves out what an import would refuse (sockets,
// block devices, names beyond Linux's own limit), and calls note with a line for people
// about each. It keeps in memory the files with several names of which it has not seen all.
func Pack(ctx context.Context, dir string, send func(frame []byte) error, note func(string)) error {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	out := newFrameWriter(send)
	p := &packer{ctx: ctx, out: out, note: note, links: map[inode]linked{}, xattrs: make([]byte, 64<<10), btrfs: onBtrfs(root)}
	err = p.dir(root, "./") // closes root
	if err == nil {
		err = out.end()
	}
	if cerr := out.close(); err == nil {
		err = cerr
	}
	return err
}

type packer struct {
	ctx    context.Context
	out    *frameWriter
	note   func(string)
	links  map[inode]linked
	ahead  int    // files that are open before their turn
	xattrs []byte // scratch
	btrfs  bool   // there may be subvolumes
}

// subvolumeMark marks the directories of an archive that are subvolumes, in the form
// of an extended attribute that no directory has: docker's btrfs driver cannot use
// its data where they come back as mere directories. Other tools than ours take it
// for an attribute, or for nothing.
const subvolumeMark = "user.lsub.subvolume"

func onBtrfs(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.BTRFS_SUPER_MAGIC
}

// inode tells files apart; a subvolume inside the distro counts for itself.
type inode struct{ dev, ino uint64 }

// linked is a file with several names.
type linked struct {
	name string // the first one, in the archive
	left uint32 // names not yet seen
}

// dir packs a directory and what is in it. It closes fd. name ends in a slash.
func (p *packer) dir(fd int, name string) error {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return p.failed(name, err)
	}
	h := header(name, &st)
	if err := p.attributes(h, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(key string, b []byte) (int, error) { return unix.Fgetxattr(fd, key, b) }); err != nil {
		return err
	}
	if p.btrfs && st.Ino == btrfs.SubvolumeInode && name != "./" {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[pax.XattrRecord(subvolumeMark)] = "1"
	}
	if err := p.header(h, nil); err != nil {
		return err
	}
	list, err := f.ReadDir(-1)
	if err != nil {
		return p.failed(name, err)
	}
	// In order, so that the same tree gives the same bytes.
	slices.SortFunc(list, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var ahead []int // of the next files; -1 for what is not opened yet
	defer func() {
		for _, fd := range ahead {
			p.closeAhead(fd)
		}
	}()
	for i, e := range list {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		for k := i + len(ahead); k < min(i+filesAhead, len(list)); k++ {
			ahead = append(ahead, p.openAhead(fd, list[k]))
		}
		file := ahead[0]
		ahead = ahead[1:]
		err := p.entry(fd, file, e, name)
		p.closeAhead(file)
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	filesAhead = 16        // of a directory are opened before it is their turn
	mostAhead  = 64        // of all directories that the walk is in
	bytesAhead = 256 << 10 // of each are read
)

// openAhead opens a file whose turn comes soon, and has the kernel read it: a
// walk that waits for each of many small files waits for the disk all the time.
// It returns -1 for what has to wait.
func (p *packer) openAhead(dirfd int, e os.DirEntry) int {
	if e.Type() != 0 || p.ahead >= mostAhead {
		return -1
	}
	fd, err := openIn(dirfd, e.Name(), 0)
	if err != nil {
		return -1 // which its turn will tell
	}
	p.ahead++
	unix.Fadvise(fd, 0, bytesAhead, unix.FADV_WILLNEED)
	return fd
}

func (p *packer) closeAhead(fd int) {
	if fd >= 0 {
		p.ahead--
		unix.Close(fd)
	}
}

// nameMax is how long a name unpack takes.
const nameMax = unix.PathMax - 1

// entry packs what is in a directory; file is the descriptor of one that is open
// already, or -1.
func (p *packer) entry(dirfd, file int, e os.DirEntry, dir string) error {
	base := e.Name()
	name := dir + base
	if len(name)-len("./") > nameMax-1 {
		p.leaveOut(name, "its name is too long")
		return nil
	}
	switch e.Type() {
	case os.ModeDir:
		fd, err := openIn(dirfd, base, unix.O_DIRECTORY)
		if err != nil {
			return p.failed(name, err)
		}
		return p.dir(fd, name+"/")
	case 0:
		if file >= 0 {
			return p.file(file, name)
		}
		fd, err := openIn(dirfd, base, 0)
		if err != nil {
			return p.failed(name, err)
		}
		defer unix.Close(fd)
		return p.file(fd, name)
	case os.ModeSocket:
		p.leaveOut(name, "a socket means nothing without the process behind it")
		return nil
	}
	return p.special(dirfd, base, name)
}

// openIn opens what is in a directory to read it, and nothing that is elsewhere.
func openIn(dirfd int, base string, flags uint64) (int, error) {
	return unix.Openat2(dirfd, base, &unix.OpenHow{
		Flags:   flags | unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// file packs a regular file.
func (p *packer) file(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return p.failed(name, err)
	}
	h := header(name, &st)
	if done, err := p.again(h, &st); done || err != nil {
		return err
	}
	if err := p.attributes(h, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(key string, b []byte) (int, error) { return unix.Fgetxattr(fd, key, b) }); err != nil {
		return err
	}
	data, err := extents(fd, st.Size)
	if err != nil {
		return p.failed(name, err)
	}
	if err := p.header(h, data); err != nil {
		return err
	}
	if data == nil {
		data = []pax.Extent{{Offset: 0, Size: st.Size}}
	}
	sum := int64(0)
	for _, e := range data {
		if err := p.out.copy(p.ctx, fd, e); err != nil {
			return p.failed(name, err)
		}
		sum += e.Size
	}
	return p.out.pad(sum)
}

// special packs what is neither a regular file nor a directory.
func (p *packer) special(dirfd int, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return p.failed(name, err)
	}
	h := header(name, &st)
	switch h.Typeflag {
	case tar.TypeSymlink:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dirfd, base, b)
		if err != nil {
			return p.failed(name, err)
		}
		h.Linkname = string(b[:n])
	case tar.TypeBlock:
		p.leaveOut(name, "a block device is no part of a distro")
		return nil
	case tar.TypeChar:
		if !rootfs.HarmlessDevice(h.Devmajor, h.Devminor) {
			p.leaveOut(name, fmt.Sprintf("the device %d:%d is no part of a distro", h.Devmajor, h.Devminor))
			return nil
		}
	}
	if done, err := p.again(h, &st); done || err != nil {
		return err
	}
	path := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + base
	if err := p.attributes(h, func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(key string, b []byte) (int, error) { return unix.Lgetxattr(path, key, b) }); err != nil {
		return err
	}
	return p.header(h, nil)
}

// again packs a further name of a file that has one in the archive.
func (p *packer) again(h *tar.Header, st *unix.Stat_t) (bool, error) {
	if st.Nlink < 2 {
		return false, nil
	}
	id := inode{uint64(st.Dev), st.Ino}
	first, ok := p.links[id]
	if !ok {
		p.links[id] = linked{h.Name, uint32(st.Nlink) - 1}
		return false, nil
	}
	if first.left--; first.left == 0 {
		delete(p.links, id)
	} else {
		p.links[id] = first
	}
	h.Typeflag, h.Linkname, h.Size, h.Devmajor, h.Devminor = tar.TypeLink, first.name, 0, 0, 0
	return true, p.header(h, nil)
}

// header makes the header of what st is of.
func header(name string, st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	}
	return h
}

// header writes a header. What has more attributes than an archive can have
// goes without them.
func (p *packer) header(h *tar.Header, data []pax.Extent) error {
	err := p.out.header(h, data)
	if errors.Is(err, pax.ErrTooMuch) {
		p.note(fmt.Sprintf("%s goes without its extended attributes: they are too many", distrofile.Shown(h.Name)))
		h.PAXRecords = nil
		err = p.out.header(h, data)
	}
	return err
}

// attributes adds the extended attributes that list and get find.
func (p *packer) attributes(h *tar.Header, list func([]byte) (int, error), get func(string, []byte) (int, error)) error {
	n, err := list(p.xattrs)
	if n == 0 || err == unix.ENOTSUP {
		return nil
	}
	if err != nil {
		return p.failed(h.Name, err)
	}
	h.PAXRecords = map[string]string{}
	value := make([]byte, 64<<10)
	for key := range strings.SplitSeq(strings.TrimSuffix(string(p.xattrs[:n]), "\x00"), "\x00") {
		n, err := get(key, value)
		if err == unix.ENODATA || err == unix.ENOTSUP {
			continue // listed, but not to be had: of a security module that is not there
		}
		if err != nil {
			return p.failed(h.Name, err)
		}
		h.PAXRecords[pax.XattrRecord(key)] = string(value[:n])
	}
	return nil
}

// extents finds the parts of a file that are no holes; nil where it has no holes.
func extents(fd int, size int64) ([]pax.Extent, error) {
	if size == 0 {
		return nil, nil
	}
	hole, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	if err != nil || hole >= size {
		return nil, err
	}
	list := []pax.Extent{}
	for at := int64(0); at < size; {
		start, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return nil, err
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		if len(list) == pax.MaxExtents-1 {
			end = size // so many holes go on as zeros
		}
		list = append(list, pax.Extent{Offset: start, Size: min(end, size) - start})
		at = end
	}
	return list, nil
}

func (p *packer) leaveOut(name, why string) {
	p.note(fmt.Sprintf("%s is left out: %s", distrofile.Shown(strings.TrimPrefix(name, ".")), why))
}

func (p *packer) failed(name string, err error) error {
	if cause := p.ctx.Err(); cause != nil {
		return cause
	}
	return fmt.Errorf("read %s: %w", distrofile.Shown(strings.TrimPrefix(name, ".")), err)
}
