package share

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// fanotify watches by the kernel's service of that name. Users without rights may have it for
// single directories since Linux 5.13, and names of what is renamed since 5.17. It tells the
// process that made a change, if that is the reader's own, which inotify does not.
//
// Source: fanotify(7), include/uapi/linux/fanotify.h.
type fanotify struct {
	fd   int
	wake int // an eventfd that ends the wait
	buf  []byte

	mu   sync.Mutex
	fsid map[uint64][8]byte // of file systems, by device; the zero value: cannot be watched
}

const fanotifyMask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_RENAME | unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE |
	unix.FAN_ATTRIB | unix.FAN_ONDIR | unix.FAN_EVENT_ON_CHILD

func newFanotify() (*fanotify, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_DFID_NAME, 0)
	if err != nil {
		return nil, fmt.Errorf("fanotify: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &fanotify{fd: fd, wake: wake, buf: make([]byte, 256<<10), fsid: map[uint64][8]byte{}}, nil
}

// remote are file systems that others change without the kernel's knowledge.
var remote = map[uint32]bool{
	unix.NFS_SUPER_MAGIC: true, unix.SMB_SUPER_MAGIC: true, unix.SMB2_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true,
	unix.CEPH_SUPER_MAGIC: true, unix.AFS_SUPER_MAGIC: true, unix.CODA_SUPER_MAGIC: true, unix.V9FS_MAGIC: true,
	unix.FUSE_SUPER_MAGIC: true, unix.OCFS2_SUPER_MAGIC: true, 0x01161970: true, // GFS2
	0x786f4256: true, // VirtualBox' shared folders
}

// fileSystem returns what identifies the file system of a directory.
func (f *fanotify) fileSystem(at int, name string) (id [8]byte, err error) {
	var st unix.Statx_t
	if err := unix.Statx(at, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st); err != nil {
		return id, err
	}
	dev := uint64(st.Dev_major)<<32 | uint64(st.Dev_minor)
	f.mu.Lock()
	defer f.mu.Unlock()
	id, known := f.fsid[dev]
	if !known {
		fd, err := openBeneath(at, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return id, err
		}
		defer unix.Close(fd)
		var sfs unix.Statfs_t
		if err := unix.Fstatfs(fd, &sfs); err != nil {
			return id, err
		}
		if !remote[uint32(sfs.Type)] {
			binary.NativeEndian.PutUint32(id[:], uint32(sfs.Fsid.Val[0]))
			binary.NativeEndian.PutUint32(id[4:], uint32(sfs.Fsid.Val[1]))
		}
		f.fsid[dev] = id
	}
	if id == [8]byte{} {
		return id, unix.EOPNOTSUPP
	}
	return id, nil
}

func (f *fanotify) add(at int, name string) (watchKey, error) {
	id, err := f.fileSystem(at, name)
	if err != nil {
		return "", err
	}
	err = unix.FanotifyMark(f.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR|unix.FAN_MARK_DONT_FOLLOW, fanotifyMask, at, name)
	if err == unix.ENOSPC {
		err = errWatchLimit
	}
	if err != nil {
		return "", err
	}
	h, _, err := unix.NameToHandleAt(at, name, 0)
	if err != nil {
		const identityOnly = 0x200 // AT_HANDLE_FID, for file systems without NFS' handles
		h, _, err = unix.NameToHandleAt(at, name, identityOnly)
	}
	if err != nil {
		_ = unix.FanotifyMark(f.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_ONLYDIR|unix.FAN_MARK_DONT_FOLLOW, fanotifyMask, at, name)
		return "", err
	}
	return fanotifyKey(id[:], uint32(h.Size()), h.Type(), h.Bytes()), nil
}

func fanotifyKey(fsid []byte, size uint32, kind int32, handle []byte) watchKey {
	ne := binary.NativeEndian
	b := append(make([]byte, 0, 16+len(handle)), fsid...)
	b = ne.AppendUint32(ne.AppendUint32(b, size), uint32(kind))
	return watchKey(append(b, handle...))
}

func (f *fanotify) remove(at int) error {
	return unix.FanotifyMark(f.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_ONLYDIR, fanotifyMask, at, ".")
}

func (f *fanotify) read() ([]change, error) {
	ready := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}, {Fd: int32(f.wake), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			return nil, err
		}
		if ready[1].Revents != 0 {
			unix.Close(f.fd)
			unix.Close(f.wake)
			return nil, os.ErrClosed
		}
		n, err := unix.Read(f.fd, f.buf)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		return decodeFanotify(f.buf[:n], int32(os.Getpid())), nil
	}
}

func (f *fanotify) removeAll() error {
	return unix.FanotifyMark(f.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "")
}

func (f *fanotify) close() error {
	_, err := unix.Write(f.wake, binary.NativeEndian.AppendUint64(nil, 1))
	return err
}

// decodeFanotify reads events. What is malformed is lost.
func decodeFanotify(b []byte, self int32) (all []change) {
	const head = 24 // sizeof(struct fanotify_event_metadata)
	ne := binary.NativeEndian
	for len(b) >= head {
		n := ne.Uint32(b)
		if n < head || int64(n) > int64(len(b)) || b[4] != unix.FANOTIFY_METADATA_VERSION {
			return append(all, change{what: lost})
		}
		mask := ne.Uint64(b[8:])
		c := change{own: int32(ne.Uint32(b[20:])) == self}
		ok := decodeFanotifyInfo(b[head:n], &c)
		b = b[n:]
		for _, m := range []struct {
			mask uint64
			what kinds
		}{
			{unix.FAN_CREATE, made}, {unix.FAN_DELETE, removed}, {unix.FAN_RENAME, renamed}, {unix.FAN_MODIFY, modified},
			{unix.FAN_CLOSE_WRITE, closedWrite}, {unix.FAN_ATTRIB, attributes}, {unix.FAN_ONDIR, directory},
		} {
			if mask&m.mask != 0 {
				c.what |= m.what
			}
		}
		if mask&unix.FAN_Q_OVERFLOW != 0 || !ok {
			c = change{what: lost}
		}
		all = append(all, c)
	}
	return all
}

// decodeFanotifyInfo reads where an event was.
func decodeFanotifyInfo(b []byte, c *change) bool {
	const head = 4 + 8 + 8 // struct fanotify_event_info_fid, and file_handle
	ne := binary.NativeEndian
	for len(b) >= 4 {
		n := int(ne.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return false
		}
		info := b[:n]
		kind := b[0]
		b = b[n:]
		if kind != unix.FAN_EVENT_INFO_TYPE_DFID_NAME && kind != unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME && kind != unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME {
			continue
		}
		if len(info) < head {
			return false
		}
		size := ne.Uint32(info[12:])
		if int64(size) > int64(len(info)-head) {
			return false
		}
		handle := info[head : head+size]
		key := fanotifyKey(info[4:12], size, int32(ne.Uint32(info[16:])), handle)
		name, _, _ := strings.Cut(string(info[head+size:]), "\x00")
		if kind == unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME {
			c.toDir, c.to = key, name
		} else {
			c.dir, c.name = key, name
		}
	}
	return true
}
