package share

import (
	"context"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// lockKey says whose a lock is: an owner of POSIX locks, which the guest's kernel numbers,
// or an open file, whose number the server knows.
type lockKey struct{ owner, file uint64 }

// lockFD is a descriptor on the host that holds the locks of one owner on one file: for the
// host's kernel, its open file description is the owner. So locks are true between the
// guest's processes and the host's.
type lockFD struct{ slot slot }

// maxLockFDs bounds the descriptors that hold locks.
const maxLockFDs = fdReserve / 2

// fileLock is a struct fuse_file_lock.
type fileLock struct {
	start, end uint64 // both included
	kind, pid  uint32
}

// host returns the lock as the host's kernel takes it.
func (l *fileLock) host() (unix.Flock_t, error) {
	if l.start > math.MaxInt64 || l.end > math.MaxInt64 || l.end < l.start || l.kind > unix.F_UNLCK {
		return unix.Flock_t{}, unix.EINVAL
	}
	h := unix.Flock_t{Type: int16(l.kind), Start: int64(l.start), Len: int64(l.end-l.start) + 1}
	if l.end == math.MaxInt64 {
		h.Len = 0 // to the end of the file, wherever that will be
	}
	return h, nil
}

func (b *body) lock() (fh, owner uint64, l fileLock, flags uint32) {
	fh, owner = b.u64(), b.u64()
	l = fileLock{b.u64(), b.u64(), b.u32(), b.u32()}
	return fh, owner, l, b.u32()
}

// lockFD returns what holds the locks of an owner. If there is none, it returns nil, or makes
// it if create is set.
func (s *Server) lockFD(f *file, key lockKey, create bool) (*lockFD, error) {
	s.mu.RLock()
	l, total := f.node.locks[key], s.lockFDs
	s.mu.RUnlock()
	if l != nil || !create {
		return l, nil
	}
	if total >= maxLockFDs {
		return nil, unix.ENOLCK
	}
	fd, err := s.openForLock(f)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := f.node.locks[key]; l != nil {
		_ = unix.Close(fd)
		return l, nil
	}
	if s.files[f.id] != f { // released in between
		_ = unix.Close(fd)
		return nil, unix.EBADF
	}
	if f.node.locks == nil {
		f.node.locks = map[lockKey]*lockFD{}
	}
	l = &lockFD{}
	s.fds.adopt(&l.slot, fd, true)
	f.node.locks[key] = l
	s.lockFDs++
	if key.file == 0 {
		if f.owners == nil {
			f.owners = map[uint64]bool{}
		}
		f.owners[key.owner] = true
	}
	return l, nil
}

// holdLock returns the descriptor until s.fds.release(&l.slot). It is EBADF once the locks
// were dropped.
func (s *Server) holdLock(l *lockFD) (int, error) {
	return s.fds.hold(&l.slot, func() (int, error) { return -1, unix.EBADF })
}

// openForLock opens the file once more: to write too if that is allowed, because an owner
// may lock through several files.
func (s *Server) openForLock(f *file) (int, error) {
	at, err := s.holdFile(f)
	if err != nil {
		return -1, err
	}
	defer s.fds.release(&f.slot)
	if s.cfg.Writable {
		if fd, err := unix.Open(procPath(at), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err == nil {
			return fd, nil
		}
	}
	return unix.Open(procPath(at), f.flags&unix.O_ACCMODE|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// dropLocks ends all locks of an owner on a file.
func (s *Server) dropLocks(n *node, key lockKey) {
	s.mu.Lock()
	l := n.locks[key]
	if l != nil {
		delete(n.locks, key)
		s.lockFDs--
	}
	s.mu.Unlock()
	if l != nil {
		s.fds.discard(&l.slot)
	}
}

func (s *Server) getlk(r *request) error {
	fh, owner, l, _ := r.body.lock()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	h, err := l.host()
	if err != nil {
		return err
	}
	own, err := s.lockFD(f, lockKey{owner: owner}, false)
	if err != nil {
		return err
	}
	var fd int
	if own != nil {
		if fd, err = s.holdLock(own); err == nil {
			defer s.fds.release(&own.slot)
		}
	} else if fd, err = s.openForLock(f); err == nil {
		defer unix.Close(fd)
	}
	if err != nil {
		return err
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &h); err != nil {
		return lockError(err)
	}
	end := uint64(math.MaxInt64)
	if h.Len > 0 {
		end = uint64(h.Start + h.Len - 1)
	}
	r.ans.u64(uint64(h.Start))
	r.ans.u64(end)
	r.ans.u32(uint32(h.Type))
	r.ans.u32(0) // the owner is no process of the guest's, or one that the host does not know
	return nil
}

func (s *Server) setlk(r *request) error {
	fh, owner, l, flags := r.body.lock()
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	h, err := l.host()
	if err != nil {
		return err
	}
	key := lockKey{owner: owner}
	if flags&lockFlock != 0 {
		key = lockKey{file: fh}
	}
	own, err := s.lockFD(f, key, l.kind != unix.F_UNLCK)
	if err != nil || own == nil {
		return err // nothing is locked
	}
	fd, err := s.holdLock(own)
	if err != nil {
		return err
	}
	defer s.fds.release(&own.slot)
	try := func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &h) }
	if flags&lockFlock != 0 {
		how := map[uint32]int{unix.F_RDLCK: unix.LOCK_SH, unix.F_WRLCK: unix.LOCK_EX, unix.F_UNLCK: unix.LOCK_UN}[l.kind]
		try = func() error { return unix.Flock(fd, how|unix.LOCK_NB) }
	}
	err = try()
	if err == unix.EACCES {
		err = unix.EAGAIN
	}
	if err == unix.EAGAIN && r.op == opSetlkw {
		err = s.awaitLock(r, try)
	}
	if l.kind == unix.F_UNLCK && (flags&lockFlock != 0 || h.Start == 0 && h.Len == 0) {
		s.dropLocks(f.node, key)
	}
	return lockError(err)
}

// lockError says that there are no locks where the host has none.
func lockError(err error) error {
	if err == unix.ENOSYS || err == unix.EOPNOTSUPP || err == unix.EINVAL {
		return unix.ENOLCK
	}
	return err
}

// CancelWaits ends the requests that wait for locks, with EINTR.
func (s *Server) CancelWaits() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, cancel := range s.waiting {
		cancel()
	}
}

// awaitLock tries until it has the lock, or the guest gives up. The host's kernel could wait
// by itself, but nobody could end that.
func (s *Server) awaitLock(r *request, try func() error) error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	s.mu.Lock()
	s.waiting[r.unique] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, r.unique)
		s.mu.Unlock()
	}()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return unix.EINTR
		case <-time.After(pause):
		}
		if err := try(); err != unix.EAGAIN && err != unix.EACCES && err != unix.EINTR {
			return err
		}
	}
}
