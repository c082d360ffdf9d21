package share

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// ownerXattr keeps what the host cannot keep of a file, where the share has metadata.
const ownerXattr = "user.lsub.owner"

// ownership is the value of ownerXattr: four little-endian numbers of 32 bits.
type ownership struct {
	uid, gid uint32
	mode     uint32 // S_IFMT of a device; 0 for other files
	rdev     uint32
}

func (o *ownership) encode() []byte {
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, o.uid), o.gid), o.mode), o.rdev)
}

func decodeOwnership(b []byte) *ownership {
	if len(b) != 16 {
		return nil
	}
	le := binary.LittleEndian
	o := &ownership{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])}
	if o.mode != unix.S_IFCHR && o.mode != unix.S_IFBLK {
		o.mode = 0
	}
	return o
}

// canOwn reports whether files of the format can have extended attributes of users.
func canOwn(mode uint16) bool {
	return mode&unix.S_IFMT == unix.S_IFREG || mode&unix.S_IFMT == unix.S_IFDIR
}

// owner returns what is kept of a node's owner, or nil.
func (s *Server) owner(n *node, st *unix.Statx_t) *ownership {
	if !s.cfg.Metadata || !canOwn(st.Mode) {
		return nil
	}
	from, err := s.holdAny(n)
	if err != nil {
		return nil
	}
	defer from.release()
	return ownerOf(unix.Getxattr, procPath(from.fd))
}

// ownerAt is owner for an entry of a directory.
func (s *Server) ownerAt(at int, name string, st *unix.Statx_t) *ownership {
	if !s.cfg.Metadata || !canOwn(st.Mode) {
		return nil
	}
	return ownerOf(unix.Lgetxattr, procPath(at)+"/"+name)
}

// ownerOf asks with one of two functions: one for a descriptor's path, whose last step is a
// link to follow, and one for an entry of a directory.
func ownerOf(get func(path, attr string, to []byte) (int, error), path string) *ownership {
	var b [16]byte
	n, err := get(path, ownerXattr, b[:])
	if err != nil {
		return nil
	}
	return decodeOwnership(b[:n])
}

// setOwner keeps an owner beside a node's file.
func (s *Server) setOwner(n *node, fd int, o *ownership) error {
	if n.format != unix.S_IFREG && n.format != unix.S_IFDIR {
		return unix.EPERM
	}
	return unix.Setxattr(procPath(fd), ownerXattr, o.encode(), 0)
}

func (s *Server) setOwnerAt(at int, name string, o *ownership) error {
	return unix.Lsetxattr(procPath(at)+"/"+name, ownerXattr, o.encode(), 0)
}

// ownNew keeps the owner of what a request has made, where it is not the host's user.
func (s *Server) ownNew(r *request, at int, name string) {
	if s.cfg.Metadata && r.op != opMknod && (r.uid != s.cfg.GuestUID || r.gid != s.cfg.GuestGID) {
		_ = s.setOwnerAt(at, name, &ownership{uid: r.uid, gid: r.gid}) // links and the like have none
	}
}
