package share

import (
	"golang.org/x/sys/unix"
)

// file is a file or directory that the guest has open.
type file struct {
	id    uint64
	node  *node
	flags int // of the host's open
	slot  slot
	// owners are the owners of POSIX locks that were taken through this file; guarded by
	// Server.mu.
	owners map[uint64]bool
	list   listing // of a directory
}

// file returns an open file of a number, or nil.
func (s *Server) file(fh uint64) *file {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.files[fh]
}

// fileOf returns the open file of a request.
func (s *Server) fileOf(r *request, fh uint64) (*file, error) {
	f := s.file(fh)
	if f == nil || f.node.id != r.node {
		return nil, unix.EBADF
	}
	return f, nil
}

// holdFile returns the file's descriptor until s.fds.release(&f.slot).
func (s *Server) holdFile(f *file) (int, error) {
	return s.fds.hold(&f.slot, func() (int, error) { return s.openNamed(f.node, f.flags) })
}

// held is a descriptor in use.
type held struct {
	fd      int
	release func()
}

// holdAny returns a descriptor of the node, O_PATH or not.
func (s *Server) holdAny(n *node) (held, error) {
	if f := s.anyFile(n); f != nil && !s.fds.isOpen(&n.slot) {
		if fd, err := s.holdFile(f); err == nil {
			return held{fd, func() { s.fds.release(&f.slot) }}, nil
		}
	}
	fd, err := s.hold(n)
	return held{fd, func() { s.fds.release(&n.slot) }}, err
}

// openNode opens a regular file or a directory, also one that has lost its name while it is
// open. flags must not truncate nor create.
func (s *Server) openNode(n *node, flags int) (int, error) {
	fd, err := s.openNamed(n, flags)
	f := s.anyFile(n)
	if err != unix.ESTALE || f == nil {
		return fd, err
	}
	at, err := s.holdFile(f)
	if err != nil {
		return -1, err
	}
	defer s.fds.release(&f.slot)
	return unix.Open(procPath(at), flags|unix.O_CLOEXEC, 0)
}

// openNamed opens a regular file or a directory by its name, or by its own descriptor.
func (s *Server) openNamed(n *node, flags int) (int, error) {
	// Nothing else has contents on the host; the guest's kernel has its own of the kind.
	switch n.format {
	case unix.S_IFREG:
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	case unix.S_IFDIR:
		flags |= unix.O_DIRECTORY
	default:
		return -1, unix.ENXIO
	}
	if !s.fds.isOpen(&n.slot) && n != s.root {
		return s.reopen(n, flags)
	}
	fd, err := s.hold(n)
	if err != nil {
		return -1, err
	}
	defer s.fds.release(&n.slot)
	return unix.Open(procPath(fd), flags|unix.O_CLOEXEC, 0)
}

// hostFlags are the guest's flags of open that the host's file gets.
func hostFlags(guest uint32) int {
	return int(guest) & (unix.O_ACCMODE | unix.O_APPEND)
}

// register adds an open file.
func (s *Server) register(n *node, flags, fd int, pinned bool) *file {
	f := &file{node: n, flags: flags}
	s.fds.adopt(&f.slot, fd, pinned)
	s.mu.Lock()
	s.lastID++
	f.id = s.lastID
	s.files[f.id] = f
	if n.files == nil {
		n.files = map[*file]struct{}{}
	}
	n.files[f] = struct{}{}
	s.mu.Unlock()
	if n.format == unix.S_IFREG {
		s.regular.Add(1)
	}
	return f
}

// pinFiles has the node's open files keep their descriptors: it is about to lose its name,
// or the rights to open it.
func (s *Server) pinFiles(n *node) {
	s.mu.RLock()
	files := make([]*file, 0, len(n.files))
	for f := range n.files {
		files = append(files, f)
	}
	s.mu.RUnlock()
	for _, f := range files {
		if _, err := s.holdFile(f); err == nil {
			s.fds.pin(&f.slot)
			s.fds.release(&f.slot)
		}
	}
}

// putOpen answers with an open file.
func (r *request) putOpen(f *file, flags uint32) {
	r.ans.u64(f.id)
	r.ans.u32(flags)
	r.ans.u32(0)
}

func (s *Server) open(r *request) error {
	flags, more := r.body.u32(), r.body.u32()
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	if !s.cfg.Writable && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0) {
		return unix.EROFS
	}
	if n.format != unix.S_IFREG {
		return unix.ENXIO
	}
	host := hostFlags(flags)
	fd, err := s.openNode(n, host)
	if err != nil {
		return err
	}
	var st unix.Statx_t
	err = statFD(fd, &st)
	if err == nil && more&openKillSuid != 0 {
		err = killSuid(fd, &st)
	}
	if err == nil && flags&unix.O_TRUNC != 0 {
		err = unix.Ftruncate(fd, 0)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	r.putOpen(s.register(n, host, fd, false), closeFlag(flags)|s.cacheFlag(n, &st))
	return nil
}

// cacheFlag lets the guest keep what it has of the file, if that has not changed since it
// was opened last.
func (s *Server) cacheFlag(n *node, st *unix.Statx_t) uint32 {
	now := stampOf(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	same := n.seen == now
	n.seen = now
	if same {
		return openKeepCache
	}
	return 0
}

// killSuid takes set-user-ID and set-group-ID away, as a write of another user does.
func killSuid(fd int, st *unix.Statx_t) error {
	mode := uint32(st.Mode)
	drop := mode & unix.S_ISUID
	if mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
		drop |= unix.S_ISGID
	}
	if drop == 0 {
		return nil
	}
	return unix.Fchmod(fd, mode&0o7777&^drop)
}

func (s *Server) create(r *request) error {
	flags, mode := r.body.u32(), r.body.u32()
	r.body.u64() // the umask, and flags of open
	name := r.body.name()
	if r.body.bad || r.body.long {
		return nil
	}
	parent, at, err := s.dir(r.node)
	if err != nil {
		return err
	}
	defer s.fds.release(&parent.slot)
	host := hostFlags(flags)
	fd, err := openBeneath(at, name, host|int(flags)&unix.O_EXCL|unix.O_CREAT|unix.O_NONBLOCK|unix.O_NOCTTY, mode&0o7777)
	if err != nil {
		return err
	}
	var st unix.Statx_t
	err = statFD(fd, &st)
	if err == nil && uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		err = unix.ESTALE // the host has made something else in between
	}
	if err == nil && flags&unix.O_TRUNC != 0 && st.Size > 0 {
		if err = unix.Ftruncate(fd, 0); err == nil {
			err = statFD(fd, &st)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	s.ownNew(r, at, name)
	return s.created(r, parent, name, fd, flags, &st)
}

// closeFlag tells the guest's kernel whether to say when a process closes the file, which costs
// a round trip, but ends the process' POSIX locks. Files that programs lock are open for both
// ways. Other locks end with the open file, as do these where another process still has it.
func closeFlag(flags uint32) uint32 {
	if flags&unix.O_ACCMODE == unix.O_RDWR {
		return 0
	}
	return openNoFlush
}

// created answers with a new file, which is open. flags are the guest's.
func (s *Server) created(r *request, parent *node, name string, fd int, flags uint32, st *unix.Statx_t) error {
	host := hostFlags(flags)
	n := s.intern(st, parent, name)
	r.putEntry(s, n, st, s.owner(n, st), shortValidity, shortValidity) // it is about to be written
	need := map[int]uint16{unix.O_RDONLY: 0o400, unix.O_WRONLY: 0o200, unix.O_RDWR: 0o600}[host&unix.O_ACCMODE]
	f := s.register(n, host, fd, st.Mode&need != need || parent == nil)
	r.putOpen(f, closeFlag(flags)|s.cacheFlag(n, st))
	return nil
}

func (s *Server) tmpfile(r *request) error {
	flags, mode := r.body.u32(), r.body.u32()
	parent, at, err := s.dir(r.node)
	if err != nil {
		return err
	}
	defer s.fds.release(&parent.slot)
	host := hostFlags(flags)
	fd, err := unix.Openat(at, ".", host|int(flags)&unix.O_EXCL|unix.O_TMPFILE|unix.O_CLOEXEC, mode&0o7777)
	if err != nil {
		return err
	}
	var st unix.Statx_t
	if err := statFD(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	return s.created(r, nil, "", fd, flags, &st)
}

func (s *Server) release(r *request) error {
	fh := r.body.u64()
	s.mu.Lock()
	f := s.files[fh]
	if f == nil || f.node.id != r.node {
		s.mu.Unlock()
		return nil
	}
	delete(s.files, fh)
	delete(f.node.files, f)
	owners := f.owners
	f.owners = nil
	s.mu.Unlock()
	for owner := range owners {
		s.dropLocks(f.node, lockKey{owner: owner})
	}
	s.dropLocks(f.node, lockKey{file: fh})
	s.fds.discard(&f.slot)
	if f.node.format == unix.S_IFREG {
		s.regular.Add(-1)
	}
	return nil
}

func (s *Server) flush(r *request) error {
	fh := r.body.u64()
	r.body.u64()
	owner := r.body.u64()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	s.dropLocks(f.node, lockKey{owner: owner})
	return nil
}

func (s *Server) read(r *request) error {
	fh, offset, size := r.body.u64(), r.body.u64(), r.body.u32()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	fd, err := s.holdFile(f)
	if err != nil {
		return err
	}
	defer s.fds.release(&f.slot)
	to := r.out.from(outHeaderLen, int(min(size, MaxWrite)))
	for len(to) > 0 {
		n, err := unix.Preadv(fd, to, int64(offset)+int64(r.direct))
		if err == unix.EINTR {
			continue
		}
		if err != nil && r.direct == 0 {
			return err
		}
		if n <= 0 || err != nil {
			break
		}
		r.direct += n
		to = to.from(n, MaxWrite)
	}
	return nil
}

func (s *Server) write(r *request) error {
	fh, offset, size, flags := r.body.u64(), r.body.u64(), r.body.u32(), r.body.u32()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	if size > MaxWrite || r.data.size() < int(size) {
		return unix.EINVAL
	}
	fd, err := s.holdFile(f)
	if err != nil {
		return err
	}
	defer s.fds.release(&f.slot)
	if flags&writeKillSuid != 0 {
		var st unix.Statx_t
		if err := statFD(fd, &st); err == nil {
			_ = killSuid(fd, &st) // the host does it itself, unless its user is root
		}
	}
	done := 0
	for from := r.data.from(0, int(size)); len(from) > 0; {
		n, err := unix.Pwritev(fd, from, int64(offset)+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil && done == 0 {
			return err
		}
		if n <= 0 || err != nil {
			break
		}
		done += n
		from = from.from(n, MaxWrite)
	}
	r.ans.u32(uint32(done))
	r.ans.u32(0)
	return nil
}

func (s *Server) fsync(r *request) error {
	fh, flags := r.body.u64(), r.body.u32()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	fd, err := s.holdFile(f)
	if err != nil {
		return err
	}
	defer s.fds.release(&f.slot)
	if flags&fsyncDataOnly != 0 {
		return unix.Fdatasync(fd)
	}
	return unix.Fsync(fd)
}

func (s *Server) lseek(r *request) error {
	fh, offset, whence := r.body.u64(), r.body.u64(), r.body.u32()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return unix.EINVAL
	}
	fd, err := s.holdFile(f)
	if err != nil {
		return err
	}
	defer s.fds.release(&f.slot)
	at, err := unix.Seek(fd, int64(offset), int(whence)) // the position is used by nobody
	if err == nil {
		r.ans.u64(uint64(at))
	}
	return err
}

func (s *Server) fallocate(r *request) error {
	fh, offset, length, mode := r.body.u64(), r.body.u64(), r.body.u64(), r.body.u32()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	fd, err := s.holdFile(f)
	if err != nil {
		return err
	}
	defer s.fds.release(&f.slot)
	return unix.Fallocate(fd, mode, int64(offset), int64(length))
}

func (s *Server) copyFileRange(r *request) error {
	fh, from, toNode, toFH, to, length, flags := r.body.u64(), int64(r.body.u64()), r.body.u64(), r.body.u64(), int64(r.body.u64()), r.body.u64(), r.body.u64()
	source, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	target := s.file(toFH)
	if target == nil || target.node.id != toNode {
		return unix.EBADF
	}
	in, err := s.holdFile(source)
	if err != nil {
		return err
	}
	defer s.fds.release(&source.slot)
	out, err := s.holdFile(target)
	if err != nil {
		return err
	}
	defer s.fds.release(&target.slot)
	// A bounded piece: the guest asks for the rest.
	n, err := unix.CopyFileRange(in, &from, out, &to, int(min(length, 64<<20)), int(flags))
	if err != nil {
		return err
	}
	r.ans.u32(uint32(n))
	r.ans.u32(0)
	return nil
}
