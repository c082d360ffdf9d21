package share

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// listing is the state of an open directory.
type listing struct {
	mu     sync.Mutex
	opened int    // of the slot, when buf was read
	next   uint64 // the position of the first entry in buf
	buf    []byte // entries that were read and not sent
	space  []byte // of buf
}

// listingLen is how much is read at once, in bytes.
const listingLen = 64 << 10

func (s *Server) opendir(r *request) error {
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	if n.format != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	fd, err := s.openNode(n, unix.O_RDONLY)
	if err != nil {
		return err
	}
	r.putOpen(s.register(n, unix.O_RDONLY, fd, false), s.listingFlags(n, s.watch(n, fd, ".")))
	return nil
}

// listingFlags lets the guest's kernel keep the list of a directory that is watched. What it
// has kept counts if the directory was watched, and changes were told, all the time since.
func (s *Server) listingFlags(n *node, w *watch) uint32 {
	if !s.watches.promise(w) {
		return 0
	}
	now := listedUnder{w, s.echoes.epoch.Load()}
	s.mu.Lock()
	defer s.mu.Unlock()
	flags := uint32(openCacheDir)
	if n.listed == now {
		flags |= openKeepCache
	}
	n.listed = now
	return flags
}

// listedUnder says who watched when the guest has opened a directory.
type listedUnder struct {
	watch *watch
	epoch uint64
}

// dirent is an entry of a directory, as getdents64 returns it.
type dirent struct {
	ino, next uint64 // next is the position of the entry after it
	kind      byte
	name      []byte
}

// nextDirent splits an entry off buf. It returns false at the end.
func nextDirent(buf []byte) (e dirent, rest []byte, ok bool) {
	const head = 19
	if len(buf) < head {
		return e, nil, false
	}
	ne := binary.NativeEndian
	e.ino, e.next, e.kind = ne.Uint64(buf), ne.Uint64(buf[8:]), buf[18]
	n := int(ne.Uint16(buf[16:]))
	if n < head || n > len(buf) {
		return e, nil, false
	}
	e.name = buf[head:n]
	if end := bytes.IndexByte(e.name, 0); end >= 0 {
		e.name = e.name[:end]
	}
	return e, buf[n:], true
}

func (s *Server) readdir(r *request) error {
	fh, offset, size := r.body.u64(), r.body.u64(), int(r.body.u32())
	f, err := s.fileOf(r, fh)
	if err != nil {
		return err
	}
	if f.node.format != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	size = min(size, r.out.size()-outHeaderLen, MaxWrite)
	fd, err := s.holdFile(f)
	if err != nil {
		return err
	}
	defer s.fds.release(&f.slot)
	l := &f.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened != f.slot.opened || l.next != offset { // the slot is held, so this does not change
		if _, err := unix.Seek(fd, int64(offset), unix.SEEK_SET); err != nil {
			return err
		}
		l.opened, l.next, l.buf = f.slot.opened, offset, nil
	}
	w := s.watch(f.node, fd, ".")
	for {
		e, rest, ok := nextDirent(l.buf)
		if !ok {
			if l.space == nil {
				l.space = make([]byte, listingLen)
			}
			n, err := unix.Getdents(fd, l.space)
			if err != nil && len(r.ans.b) == 0 {
				return err
			}
			if n <= 0 {
				l.space, l.buf = nil, nil
				return nil
			}
			l.buf = l.space[:n]
			continue
		}
		if !s.putDirent(r, f.node, w, fd, &e, size) {
			return nil
		}
		l.next, l.buf = e.next, rest
	}
}

// putDirent adds an entry to the answer. It returns false if the entry has no room.
func (s *Server) putDirent(r *request, dir *node, w *watch, at int, e *dirent, size int) bool {
	need := direntLen + (len(e.name)+7)&^7
	plus := r.op == opReaddirplus
	if plus {
		need += entryLen
	}
	a := &r.ans
	if len(a.b)+need > size {
		return false
	}
	if len(e.name) > maxName {
		return true
	}
	kind := uint32(e.kind)
	if plus {
		mark := len(a.b)
		if name := string(e.name); name != "." && name != ".." {
			var st unix.Statx_t
			switch err := statAt(at, name, &st); err {
			case nil:
				own := s.ownerAt(at, name, &st)
				kind = s.attrOf(&st, own).mode >> 12
				s.answerEntry(r, dir, at, name, w, &st, own)
			case unix.ENOENT:
				return true // gone since
			}
		}
		if len(a.b) == mark {
			entry(a, 0, &attr{}, 0, 0)
		}
	}
	a.u64(e.ino)
	a.u64(e.next)
	a.u32(uint32(len(e.name)))
	a.u32(kind)
	a.b = append(a.b, e.name...)
	a.b = append(a.b, make([]byte, -len(e.name)&7)...)
	return true
}
