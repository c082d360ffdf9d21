package share

import (
	"golang.org/x/sys/unix"
)

// validity is for how long the guest may believe what it was told, in seconds.
const validity = 1

// putEntry answers with a node that the guest has looked up.
func (r *request) putEntry(s *Server, n *node, st *unix.Statx_t, own *ownership) {
	entry(&r.ans, n.id, s.attrOf(st, own))
}

// entry appends a struct fuse_entry_out.
func entry(a *answer, id uint64, t *attr) {
	for _, v := range []uint64{id, 0, validity, validity, 0} { // generation; both times' nanoseconds
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
func (r *request) putAttr(t *attr) {
	r.ans.u64(validity)
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
	var st unix.Statx_t
	if err := statAt(at, name, &st); err != nil {
		return err
	}
	own := s.ownerAt(at, name, &st)
	r.putEntry(s, s.intern(&st, parent, name), &st, own)
	return nil
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
	err = s.found(r, parent, at, name)
	if err == unix.ENOENT {
		// The guest may remember that too.
		entry(&r.ans, 0, &attr{})
		return nil
	}
	return err
}

func (s *Server) getattr(r *request) error {
	flags := r.body.u32()
	r.body.u32()
	fh := r.body.u64()
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	var st unix.Statx_t
	if f := s.file(fh); flags&getattrFH != 0 && f != nil && f.node == n {
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
	r.putAttr(s.attrOf(&st, s.owner(n, &st)))
	return nil
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
		n.parent, n.name = dir, name
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
