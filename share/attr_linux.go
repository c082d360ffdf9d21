package share

import (
	"golang.org/x/sys/unix"
)

// newAttrs are what a request to change attributes asks for.
type newAttrs struct {
	valid        uint32
	fh, size     uint64
	atime, mtime unix.Timespec
	mode         uint32
	uid, gid     uint32
}

func (b *body) attrs() newAttrs {
	a := newAttrs{valid: b.u32()}
	b.u32()
	a.fh, a.size = b.u64(), b.u64()
	b.u64() // the owner of locks, which are not mandatory
	atime, mtime := b.u64(), b.u64()
	b.u64() // ctime, which the host's kernel keeps
	atimeNsec, mtimeNsec := b.u32(), b.u32()
	b.u32()
	a.mode = b.u32()
	b.u32()
	a.uid, a.gid = b.u32(), b.u32()
	b.u32()
	a.atime = timespec(atime, atimeNsec, a.valid&setAtime != 0, a.valid&setAtimeNow != 0)
	a.mtime = timespec(mtime, mtimeNsec, a.valid&setMtime != 0, a.valid&setMtimeNow != 0)
	return a
}

func timespec(sec uint64, nsec uint32, set, now bool) (t unix.Timespec) {
	switch {
	case !set:
		t.Nsec = unix.UTIME_OMIT
	case now:
		t.Nsec = unix.UTIME_NOW
	default:
		t = unix.NsecToTimespec(0)
		t.Sec, t.Nsec = int64(sec), int64(min(nsec, 999_999_999))
	}
	return t
}

func (s *Server) setattr(r *request) error {
	want := r.body.attrs()
	if r.body.bad {
		return nil
	}
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	from, err := s.holdAny(n)
	if err != nil {
		return err
	}
	defer from.release()
	var st unix.Statx_t
	if err := statFD(from.fd, &st); err != nil {
		return err
	}
	if err := s.change(n, from.fd, &want, &st); err != nil {
		return err
	}
	w := s.watchFor(n)
	if err := statFD(from.fd, &st); err != nil {
		return err
	}
	s.putNodeAttr(r, n, w, &st)
	return nil
}

// change makes the changes, those that may be refused first.
func (s *Server) change(n *node, fd int, want *newAttrs, st *unix.Statx_t) error {
	if want.valid&(setUID|setGID) != 0 {
		if err := s.chown(n, fd, want, st); err != nil {
			return err
		}
		want.valid |= setKillSuidGid
	}
	if want.valid&setSize != 0 {
		if err := s.truncate(n, want); err != nil {
			return err
		}
	}
	if want.valid&setMode != 0 {
		if n.format == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		if want.mode&0o600 != 0o600 {
			s.pinFiles(n) // they could not be opened again
		}
		if err := unix.Chmod(procPath(fd), want.mode&0o7777); err != nil {
			return err
		}
	} else if want.valid&setKillSuidGid != 0 && n.format == unix.S_IFREG {
		if drop := uint32(st.Mode) & (unix.S_ISUID | unix.S_ISGID); drop != 0 {
			if err := unix.Chmod(procPath(fd), uint32(st.Mode)&0o7777&^drop); err != nil {
				return err
			}
		}
	}
	if want.valid&(setAtime|setMtime) != 0 {
		return s.setTimes(n, fd, []unix.Timespec{want.atime, want.mtime})
	}
	return nil
}

func (s *Server) setTimes(n *node, fd int, times []unix.Timespec) error {
	err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	if err == unix.ENOENT || err == unix.EINVAL { // before Linux 5.8
		err = unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), times, 0)
	}
	return err
}

func (s *Server) truncate(n *node, want *newAttrs) error {
	if want.valid&setFH != 0 {
		if f := s.file(want.fh); f != nil && f.node == n {
			fd, err := s.holdFile(f)
			if err != nil {
				return err
			}
			defer s.fds.release(&f.slot)
			return unix.Ftruncate(fd, int64(want.size))
		}
	}
	fd, err := s.openNode(n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Ftruncate(fd, int64(want.size))
}

// chown changes the owner. The host's files keep theirs: others are kept beside the file,
// or refused.
func (s *Server) chown(n *node, fd int, want *newAttrs, st *unix.Statx_t) error {
	own := s.owner(n, st)
	now := s.attrOf(st, own)
	uid, gid := now.uid, now.gid
	if want.valid&setUID != 0 {
		uid = want.uid
	}
	if want.valid&setGID != 0 {
		gid = want.gid
	}
	if uid == now.uid && gid == now.gid {
		return nil
	}
	if !s.cfg.Metadata {
		if uid != now.uid || gid != s.cfg.GuestGID {
			return unix.EPERM
		}
		return unix.Fchownat(fd, "", -1, unix.Getegid(), unix.AT_EMPTY_PATH)
	}
	if own == nil {
		own = &ownership{}
	}
	own.uid, own.gid = uid, gid
	return s.setOwner(n, fd, own)
}
