package share

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

// Extended attributes of users pass, but for our own. The others mean something to the
// kernel that keeps them, and the host's is another one.
func passes(name string) bool {
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.lsub.")
}

// onXattr calls f with a path that leads to the node.
func (s *Server) onXattr(r *request, f func(path string) error) error {
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	from, err := s.holdAny(n)
	if err != nil {
		return err
	}
	defer from.release()
	return f(procPath(from.fd))
}

// putSized answers with a value, or with its size if the guest asks for that.
func (r *request) putSized(size uint32, get func(to []byte) (int, error)) error {
	buf := make([]byte, 64<<10)
	n, err := get(buf)
	switch {
	case err != nil:
		return err
	case size == 0:
		r.ans.u32(uint32(n))
		r.ans.u32(0)
	case n > int(size):
		return unix.ERANGE
	default:
		r.ans.b = buf[:n]
	}
	return nil
}

func (s *Server) getxattr(r *request) error {
	size := r.body.u32()
	r.body.u32()
	name := r.body.text()
	switch {
	case r.body.bad:
		return nil
	case strings.HasPrefix(name, "system."):
		return unix.EOPNOTSUPP
	case !passes(name):
		return unix.ENODATA
	}
	return s.onXattr(r, func(path string) error {
		return r.putSized(size, func(to []byte) (int, error) { return unix.Getxattr(path, name, to) })
	})
}

func (s *Server) listxattr(r *request) error {
	size := r.body.u32()
	return s.onXattr(r, func(path string) error {
		return r.putSized(size, func(to []byte) (int, error) {
			n, err := unix.Listxattr(path, to)
			if err != nil {
				return 0, err
			}
			var kept []byte
			for name := range bytes.SplitSeq(to[:n], []byte{0}) {
				if passes(string(name)) {
					kept = append(append(kept, name...), 0)
				}
			}
			return copy(to, kept), nil
		})
	})
}

func (s *Server) setxattr(r *request) error {
	size, flags := r.body.u32(), r.body.u32()
	name := r.body.text()
	if r.body.bad || int64(size) > int64(len(r.body.b)) {
		return unix.EINVAL
	}
	if !passes(name) {
		return unix.EOPNOTSUPP
	}
	return s.onXattr(r, func(path string) error {
		return unix.Setxattr(path, name, r.body.b[:size], int(flags&(unix.XATTR_CREATE|unix.XATTR_REPLACE)))
	})
}

func (s *Server) removexattr(r *request) error {
	name := r.body.text()
	if r.body.bad {
		return nil
	}
	if !passes(name) {
		return unix.EOPNOTSUPP
	}
	return s.onXattr(r, func(path string) error { return unix.Removexattr(path, name) })
}
