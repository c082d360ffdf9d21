package share

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ident tells an inode from all others, also from later ones of the same number.
type ident struct {
	dev, ino uint64
	born     int64 // nanoseconds; 0 where the file system does not keep it
}

func identOf(st *unix.Statx_t) ident {
	id := ident{dev: uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.born = st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
	}
	return id
}

// stamp is what changes when a file's contents do.
type stamp struct {
	mtime, ctime unix.StatxTimestamp
	size         uint64
}

// node is a file that the guest has looked up.
type node struct {
	id     uint64
	key    ident
	format uint32 // S_IFMT of its mode, which never changes
	slot   slot   // an O_PATH descriptor

	// Guarded by Server.mu.
	lookups uint64 // that the guest has not forgotten
	parent  *node  // nil for the root, and for files without a name
	name    string // its last known name in the parent
	files   map[*file]struct{}
	seen    stamp            // when it was opened last
	told    stamp            // as the guest knows it
	kids    map[string]*node // whose parent it is, by name

	listed listedUnder // when the guest has opened the directory last

	watch *watch // guarded by watches.mu; nil for none
	locks map[lockKey]*lockFD
}

func stampOf(st *unix.Statx_t) stamp { return stamp{st.Mtime, st.Ctime, st.Size} }

// setPlace notes where a node is. The caller holds Server.mu.
func (n *node) setPlace(parent *node, name string) {
	if n.parent == parent && n.name == name {
		return
	}
	if n.parent != nil {
		delete(n.parent.kids, n.name)
	}
	n.parent, n.name = parent, name
	if parent == nil {
		return
	}
	if old := parent.kids[name]; old != nil { // the host has replaced it
		old.parent, old.name = nil, ""
	}
	if parent.kids == nil {
		parent.kids = map[string]*node{}
	}
	parent.kids[name] = n
}

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// place returns where the node was last seen.
func (s *Server) place(n *node) (parent *node, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.parent, n.name
}

// hold returns an O_PATH descriptor of the node, until s.fds.release(&n.slot).
func (s *Server) hold(n *node) (int, error) {
	return s.fds.hold(&n.slot, func() (int, error) { return s.reopen(n, unix.O_PATH) })
}

// reopen opens the node by its name in its parent, and checks that it is still there.
// Neither truncates nor creates.
func (s *Server) reopen(n *node, flags int) (int, error) {
	parent, name := s.place(n)
	if parent == nil {
		return -1, unix.ESTALE
	}
	at, err := s.hold(parent)
	if err != nil {
		return -1, err
	}
	defer s.fds.release(&parent.slot)
	fd, err := openBeneath(at, name, flags, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		err = unix.ESTALE
	}
	if err != nil {
		return -1, err
	}
	var st unix.Statx_t
	if err = statFD(fd, &st); err == nil && identOf(&st) != n.key {
		err = unix.ESTALE
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openBeneath opens an entry of a directory. It follows no link.
func openBeneath(at int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Mode: uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(at, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// procPath is a path that leads to what an O_PATH descriptor of this process stands for.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func statFD(fd int, st *unix.Statx_t) error {
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH, statxMask, st)
}

func statAt(at int, name string, st *unix.Statx_t) error {
	return unix.Statx(at, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statxMask, st)
}

// stat fills st for the node, by the way that opens least.
func (s *Server) stat(n *node, st *unix.Statx_t) error {
	if !s.fds.isOpen(&n.slot) {
		if f := s.anyFile(n); f != nil {
			if fd, err := s.holdFile(f); err == nil {
				defer s.fds.release(&f.slot)
				return statFD(fd, st)
			}
		}
		parent, name := s.place(n)
		if parent == nil {
			return unix.ESTALE
		}
		at, err := s.hold(parent)
		if err != nil {
			return err
		}
		defer s.fds.release(&parent.slot)
		err = statAt(at, name, st)
		if err == unix.ENOENT || err == nil && identOf(st) != n.key {
			return unix.ESTALE
		}
		return err
	}
	fd, err := s.hold(n)
	if err != nil {
		return err
	}
	defer s.fds.release(&n.slot)
	return statFD(fd, st)
}

// anyFile returns an open file of the node, or nil.
func (s *Server) anyFile(n *node) *file {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range n.files {
		return f
	}
	return nil
}

// intern returns the node of an inode that was just seen as a name of parent, and counts a
// lookup of the guest.
func (s *Server) intern(st *unix.Statx_t, parent *node, name string) *node {
	key := identOf(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byIdent[key]
	if n != nil && n.format != uint32(st.Mode)&unix.S_IFMT {
		n = nil // without a birth time, a number that is used again
	}
	if n == nil {
		s.lastID++
		n = &node{id: s.lastID, key: key, format: uint32(st.Mode) & unix.S_IFMT}
		s.byIdent[key] = n
		s.nodes[n.id] = n
	}
	n.lookups++
	n.told = stampOf(st)
	if n != s.root && n != parent && parent != nil {
		n.setPlace(parent, name)
	}
	return n
}

// known returns the node of an inode if the guest has it, or nil.
func (s *Server) known(st *unix.Statx_t) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byIdent[identOf(st)]
}

// node returns the node of a number.
func (s *Server) node(id uint64) (*node, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.nodes[id]; n != nil {
		return n, nil
	}
	return nil, unix.ESTALE
}

// forget takes back lookups of a node, and drops it after the last one.
func (s *Server) forget(id, lookups uint64) {
	s.mu.Lock()
	n := s.nodes[id]
	if n == nil || n == s.root {
		s.mu.Unlock()
		return
	}
	n.lookups -= min(lookups, n.lookups)
	gone := n.lookups == 0
	if gone {
		delete(s.nodes, id)
		n.setPlace(nil, "")
		if s.byIdent[n.key] == n {
			delete(s.byIdent, n.key)
		}
	}
	s.mu.Unlock()
	if gone {
		s.unwatch(n)
		s.fds.discard(&n.slot)
	}
}

// attr is what the guest is told of a file.
type attr struct {
	ino, size, blocks     uint64
	atime, mtime, ctime   unix.StatxTimestamp
	mode, nlink, uid, gid uint32
	rdev, blksize         uint32
}

// attrOf translates attributes for the guest.
func (s *Server) attrOf(st *unix.Statx_t, own *ownership) *attr {
	a := &attr{
		ino: st.Ino, size: st.Size, blocks: st.Blocks, atime: st.Atime, mtime: st.Mtime, ctime: st.Ctime,
		mode: uint32(st.Mode), nlink: st.Nlink, blksize: st.Blksize,
		rdev: uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)),
		uid:  nobody, gid: nobody,
	}
	if key := identOf(st); key.dev != s.root.key.dev {
		a.ino ^= s.deviceNumber(key.dev) << 48 // another file system: its numbers may be the same
	}
	if st.Uid == s.hostUID {
		a.uid = s.cfg.GuestUID
	}
	if s.hostGIDs[st.Gid] {
		a.gid = s.cfg.GuestGID
	}
	if own != nil {
		a.uid, a.gid = own.uid, own.gid
		if own.mode&unix.S_IFMT != 0 && a.mode&unix.S_IFMT == unix.S_IFREG {
			a.mode, a.rdev, a.size = a.mode&^unix.S_IFMT|own.mode&unix.S_IFMT, own.rdev, 0
		}
	}
	return a
}

// deviceNumber numbers the file systems that are mounted below the root.
func (s *Server) deviceNumber(dev uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.devices[dev]
	if !ok {
		n = uint64(len(s.devices) + 1)
		s.devices[dev] = n
	}
	return n
}
