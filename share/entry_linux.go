package share

import (
	"time"

	"golang.org/x/sys/unix"
)

// putEntry answers with a node that the guest has looked up, for as long as the times say.
func (r *request) putEntry(s *Server, n *node, st *unix.Statx_t, own *ownership, entryTime, attrTime time.Duration) {
	entry(&r.ans, n.id, s.attrOf(st, own), entryTime, attrTime)
}

// entry appends a struct fuse_entry_out. Times are whole seconds.
func entry(a *answer, id uint64, t *attr, entryTime, attrTime time.Duration) {
	for _, v := range []uint64{id, 0, uint64(entryTime / time.Second), uint64(attrTime / time.Second), 0} { // generation; both times' nanoseconds
		a.u64(v)
	}
	a.attr(t)
}

// attr appends a struct fuse_attr.
func (a *answer) attr(t *attr) {
	for _, v := range []uint64{t.ino, t.size, t.blocks, uint64(t.atime.Sec), uint64(t.mtime.Sec), uint64(t.ctime.Sec)} {
		a.u64(v)
	}
	for _, v := range []uint32{t.atime.Nsec, t.mtime.Nsec, t.ctime.Nsec, t.mode, t.nlink, t.uid, t.gid, t.rdev, t.blksize, 0} {
		a.u32(v)
	}
}

// putAttr answers with a struct fuse_attr_out.
func (r *request) putAttr(t *attr, validity time.Duration) {
	r.ans.u64(uint64(validity / time.Second))
	r.ans.u64(0)
	r.ans.attr(t)
}

// dir returns the directory that a request names, with a descriptor, until
// s.fds.release(&n.slot).
func (s *Server) dir(id uint64) (*node, int, error) {
	n, err := s.node(id)
	if err != nil {
		return nil, -1, err
	}
	if n.format != unix.S_IFDIR {
		return nil, -1, unix.ENOTDIR
	}
	fd, err := s.hold(n)
	return n, fd, err
}

// found answers with the entry that a name has now.
func (s *Server) found(r *request, parent *node, at int, name string) error {
	w := s.watch(parent, at, ".")
	var st unix.Statx_t
	err := statAt(at, name, &st)
	if err == unix.ENOENT && r.op == opLookup {
		// The guest may remember that too.
		validity := shortValidity
		if s.watches.promiseAbsent(w, name) {
			validity = longValidity
		}
		entry(&r.ans, 0, &attr{}, validity, 0)
		return nil
	}
	if err != nil {
		return err
	}
	s.answerEntry(r, parent, at, name, w, &st, s.ownerAt(at, name, &st))
	return nil
}

// answerEntry answers with an entry that was found out with the watch on its directory.
func (s *Server) answerEntry(r *request, parent *node, at int, name string, w *watch, st *unix.Statx_t, own *ownership) {
	n := s.intern(st, parent, name)
	s.watchEntry(n, at, name)
	entryTime, attrTime := s.validity(w, st)
	r.putEntry(s, n, st, own, entryTime, attrTime)
}

func (s *Server) lookup(r *request) error {
	name := r.body.name()
	if r.body.bad || r.body.long {
		return nil
	}
	parent, at, err := s.dir(r.node)
	if err != nil {
		return err
	}
	defer s.fds.release(&parent.slot)
	return s.found(r, parent, at, name)
}

func (s *Server) getattr(r *request) error {
	flags := r.body.u32()
	r.body.u32()
	fh := r.body.u64()
	f := s.file(fh)
	if flags&getattrFH == 0 {
		f = nil
	}
	return s.answerAttr(r, f)
}

// answerAttr answers with the attributes of the request's node, which f has open if it is
// not nil.
func (s *Server) answerAttr(r *request, f *file) error {
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	w := s.watchFor(n)
	var st unix.Statx_t
	if f != nil && f.node == n {
		fd, err := s.holdFile(f)
		if err != nil {
			return err
		}
		defer s.fds.release(&f.slot)
		err = statFD(fd, &st)
		if err != nil {
			return err
		}
	} else if err := s.stat(n, &st); err != nil {
		return err
	}
	s.putNodeAttr(r, n, w, &st)
	return nil
}

// putNodeAttr answers with attributes that were found out with the watch of watchFor.
func (s *Server) putNodeAttr(r *request, n *node, w *watch, st *unix.Statx_t) {
	s.mu.Lock()
	n.told = stampOf(st)
	s.mu.Unlock()
	r.putAttr(s.attrOf(st, s.owner(n, st)), s.attrValidity(n, w, st))
}

func (s *Server) readlink(r *request) error {
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	fd, err := s.hold(n)
	if err != nil {
		return err
	}
	defer s.fds.release(&n.slot)
	buf := make([]byte, 4096)
	size, err := unix.Readlinkat(fd, "", buf)
	if err == nil {
		r.ans.b = buf[:size]
	}
	return err
}

func (s *Server) symlink(r *request) error {
	name, target := r.body.name(), r.body.text()
	return s.make(r, name, func(at int) error { return unix.Symlinkat(target, at, name) })
}

func (s *Server) mkdir(r *request) error {
	mode := r.body.u32()
	r.body.u32() // the umask, which the guest has applied
	name := r.body.name()
	return s.make(r, name, func(at int) error { return unix.Mkdirat(at, name, mode&0o7777) })
}

func (s *Server) mknod(r *request) error {
	mode, rdev := r.body.u32(), r.body.u32()
	r.body.u64() // the umask, and padding
	name := r.body.name()
	return s.make(r, name, func(at int) error {
		switch mode & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, 0:
			return unix.Mknodat(at, name, mode&(unix.S_IFMT|0o7777), 0)
		case unix.S_IFCHR, unix.S_IFBLK:
			if !s.cfg.Metadata {
				return unix.EPERM
			}
			if err := unix.Mknodat(at, name, unix.S_IFREG|mode&0o7777, 0); err != nil {
				return err
			}
			err := s.setOwnerAt(at, name, &ownership{uid: r.uid, gid: r.gid, mode: mode & unix.S_IFMT, rdev: rdev})
			if err != nil {
				_ = unix.Unlinkat(at, name, 0)
			}
			return err
		}
		return unix.EINVAL
	})
}

// make makes an entry, and answers with it.
func (s *Server) make(r *request, name string, make func(at int) error) error {
	if r.body.bad || r.body.long {
		return nil
	}
	parent, at, err := s.dir(r.node)
	if err != nil {
		return err
	}
	defer s.fds.release(&parent.slot)
	if err := make(at); err != nil {
		return err
	}
	s.ownNew(r, at, name)
	return s.found(r, parent, at, name)
}

func (s *Server) link(r *request) error {
	old := r.body.u64()
	name := r.body.name()
	if r.body.bad || r.body.long {
		return nil
	}
	n, err := s.node(old)
	if err != nil {
		return err
	}
	from, err := s.holdAny(n)
	if err != nil {
		return err
	}
	defer from.release()
	parent, at, err := s.dir(r.node)
	if err != nil {
		return err
	}
	defer s.fds.release(&parent.slot)
	// The descriptor is of a file, or of a link itself: there is no other link to follow.
	if err := unix.Linkat(unix.AT_FDCWD, procPath(from.fd), at, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	return s.found(r, parent, at, name)
}

func (s *Server) unlink(r *request) error { return s.remove(r, 0) }
func (s *Server) rmdir(r *request) error  { return s.remove(r, unix.AT_REMOVEDIR) }

func (s *Server) remove(r *request, flags int) error {
	name := r.body.name()
	if r.body.bad || r.body.long {
		return nil
	}
	parent, at, err := s.dir(r.node)
	if err != nil {
		return err
	}
	defer s.fds.release(&parent.slot)
	s.keepOpen(at, name)
	return unix.Unlinkat(at, name, flags)
}

func (s *Server) rename(r *request) error {
	to := r.body.u64()
	var flags uint32
	if r.op == opRename2 {
		flags = r.body.u32()
		r.body.u32()
	}
	oldName, newName := r.body.name(), r.body.name()
	if r.body.bad || r.body.long {
		return nil
	}
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	oldDir, oldAt, err := s.dir(r.node)
	if err != nil {
		return err
	}
	defer s.fds.release(&oldDir.slot)
	newDir, newAt, err := s.dir(to)
	if err != nil {
		return err
	}
	defer s.fds.release(&newDir.slot)
	if flags&unix.RENAME_EXCHANGE == 0 {
		s.keepOpen(newAt, newName)
	}
	if err := unix.Renameat2(oldAt, oldName, newAt, newName, uint(flags)); err != nil {
		return err
	}
	s.moved(newAt, newDir, newName)
	if flags&unix.RENAME_EXCHANGE != 0 {
		s.moved(oldAt, oldDir, oldName)
	}
	return nil
}

// moved notes where a node is now.
func (s *Server) moved(at int, dir *node, name string) {
	var st unix.Statx_t
	if statAt(at, name, &st) != nil {
		return
	}
	if n := s.known(&st); n != nil && n != s.root {
		s.mu.Lock()
		n.setPlace(dir, name)
		s.mu.Unlock()
	}
}

// keepOpen has open files of an entry that will lose its name keep their descriptors.
func (s *Server) keepOpen(at int, name string) {
	if s.regular.Load() == 0 {
		return
	}
	var st unix.Statx_t
	if statAt(at, name, &st) != nil {
		return
	}
	if n := s.known(&st); n != nil {
		s.pinFiles(n)
	}
}
