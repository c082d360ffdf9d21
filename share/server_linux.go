package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// nobody is the user and group of the guest that files of other owners belong to.
const nobody = 65534

// Server serves one directory. Its methods are safe for concurrent use. The process's umask
// should be 0: the guest's kernel has applied its own.
type Server struct {
	cfg      Config
	hostUID  uint32
	hostGIDs map[uint32]bool
	fds      *fdTable
	root     *node

	mu      sync.RWMutex
	nodes   map[uint64]*node
	byIdent map[ident]*node
	files   map[uint64]*file
	lastID  uint64 // of nodes and of files
	devices map[uint64]uint64
	waiting map[uint64]context.CancelFunc // requests that wait, by their unique number

	lockFDs int // descriptors that hold locks

	watches  *watches
	echoes   echoes
	reading  sync.WaitGroup // of readChanges
	requests atomic.Uint64

	regular atomic.Int64 // regular files that are open
}

// fdReserve is how many descriptors are left for requests in progress, locks and the
// process itself.
const fdReserve = 256

// Open opens the directory.
func Open(cfg Config) (*Server, error) {
	fd, err := unix.Open(cfg.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", cfg.Dir, err)
	}
	if cfg.MaxFDs == 0 {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			limit.Cur = 1024
		}
		cfg.MaxFDs = int(min(max(limit.Cur, fdReserve+64)-fdReserve, 8192))
	}
	s := &Server{
		cfg: cfg, hostUID: uint32(os.Geteuid()), hostGIDs: map[uint32]bool{uint32(os.Getegid()): true},
		fds:   newFDTable(cfg.MaxFDs),
		nodes: map[uint64]*node{}, byIdent: map[ident]*node{}, files: map[uint64]*file{},
		devices: map[uint64]uint64{}, waiting: map[uint64]context.CancelFunc{},
		lastID:  uint64(cfg.Epoch)<<40 + 1,
		watches: newWatches(cfg.MaxWatches), echoes: echoes{pending: newPendingChanges()},
	}
	if groups, err := os.Getgroups(); err == nil {
		for _, g := range groups {
			s.hostGIDs[uint32(g)] = true
		}
	}
	var st unix.Statx_t
	if err := statFD(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("share %s: %w", cfg.Dir, err)
	}
	s.root = &node{id: 1, key: identOf(&st), format: unix.S_IFDIR, lookups: 1}
	s.nodes[1], s.byIdent[s.root.key] = s.root, s.root
	s.fds.adopt(&s.root.slot, fd, true)
	if s.watches.watcher != nil {
		s.reading.Go(s.readChanges)
	}
	return s, nil
}

// Close closes all descriptors. No request may be in progress.
func (s *Server) Close() error {
	s.reset()
	if s.watches.watcher != nil {
		_ = s.watches.watcher.close()
		s.reading.Wait()
	}
	s.fds.discard(&s.root.slot)
	return nil
}

// reset forgets all nodes but the root, and all open files.
func (s *Server) reset() {
	s.unwatchAll()
	s.echoes.pending.clear()
	s.mu.Lock()
	nodes, files := s.nodes, s.files
	s.nodes, s.byIdent = map[uint64]*node{1: s.root}, map[ident]*node{s.root.key: s.root}
	s.root.kids = nil
	s.files, s.lockFDs = map[uint64]*file{}, 0
	var slots []*slot
	for _, n := range nodes {
		for _, l := range n.locks {
			slots = append(slots, &l.slot)
		}
		if n != s.root {
			slots = append(slots, &n.slot)
		}
		n.locks, n.files = nil, nil
	}
	for _, f := range files {
		slots = append(slots, &f.slot)
	}
	s.mu.Unlock()
	s.regular.Store(0)
	for _, slot := range slots {
		s.fds.discard(slot)
	}
}

// request is a request in progress.
type request struct {
	header
	ctx  context.Context
	body body
	data pieces // of a write
	out  pieces // where the answer goes
	ans  answer
	// direct is how many bytes of the answer's payload are in out already.
	direct int
}

// Handle serves a request, and writes the answer. It returns the answer's length in bytes, 0
// for a request that has none. The memory of the request may change at any time; that of the
// answer is written only. ctx ends a wait for a lock.
func (s *Server) Handle(ctx context.Context, in, out [][]byte) int {
	var raw [inHeaderLen]byte
	if pieces(in).read(raw[:]) < len(raw) {
		return 0
	}
	r := &request{header: decodeHeader(&raw), ctx: ctx, out: out}
	n := pieces(in).size() - inHeaderLen
	errno := unix.Errno(0)
	switch {
	case n < 0 || int(r.length) < inHeaderLen:
		errno = unix.EINVAL
	default:
		n = min(n, int(r.length)-inHeaderLen)
		if r.op == opWrite {
			r.data = pieces(in).from(inHeaderLen+writeInLen, n-writeInLen)
			n = min(n, writeInLen)
		}
		if n > maxBody {
			errno = unix.E2BIG
			break
		}
		r.body.b = make([]byte, n)
		pieces(in).from(inHeaderLen, n).read(r.body.b)
		errno = s.serve(r)
	}
	if hasNoAnswer(r.op) {
		return 0
	}
	if errno != 0 {
		return putHeader(out, r.unique, -int32(errno), 0)
	}
	if r.direct > 0 {
		return putHeader(out, r.unique, 0, r.direct)
	}
	total := putHeader(out, r.unique, 0, len(r.ans.b))
	if total == 0 {
		return putHeader(out, r.unique, -int32(unix.EIO), 0)
	}
	pieces(out).from(outHeaderLen, len(r.ans.b)).write(r.ans.b)
	return total
}

// serve runs the request. Its error is one of the host's kernel.
func (s *Server) serve(r *request) unix.Errno {
	f := operations[r.op]
	if f == nil {
		return unix.ENOSYS
	}
	switch {
	case s.isEcho(r):
		f = (*Server).serveEcho
	case !s.cfg.Writable && changes[r.op]:
		return unix.EROFS
	case !hasNoAnswer(r.op):
		s.requests.Add(1)
	}
	again := *r
	err := f(s, r)
	if (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)) && s.fds.shrink() {
		*r = again // an operation opens what it needs before it changes anything
		err = f(s, r)
	}
	switch {
	case r.body.long:
		return unix.ENAMETOOLONG
	case r.body.bad:
		return unix.EINVAL
	}
	return errnoOf(err)
}

// errnoOf returns the number of an error. Those that would mislead the guest's kernel become
// others: ENOSYS would switch an operation off for good.
func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var errno unix.Errno
	switch {
	case errors.Is(err, context.Canceled):
		return unix.EINTR
	case !errors.As(err, &errno) || errno >= 512:
		return unix.EIO
	case errno == unix.ENOSYS:
		return unix.EOPNOTSUPP
	case errno == unix.EXDEV:
		return unix.EXDEV
	}
	return errno
}

// operations are the requests that the server knows.
var operations map[uint32]func(*Server, *request) error

// changes are the requests that a read-only share refuses. Others look at their flags.
var changes = map[uint32]bool{
	opSetattr: true, opSymlink: true, opMknod: true, opMkdir: true, opUnlink: true, opRmdir: true, opRename: true,
	opLink: true, opWrite: true, opSetxattr: true, opRemovexattr: true, opCreate: true, opFallocate: true,
	opRename2: true, opCopyFileRange: true, opTmpfile: true,
}

func init() {
	operations = map[uint32]func(*Server, *request) error{
		opInit: (*Server).init, opDestroy: (*Server).nothing, opStatfs: (*Server).statfs, opSyncfs: (*Server).syncfs,
		opForget: (*Server).forgetOne, opBatchForget: (*Server).forgetMany, opInterrupt: (*Server).interrupt,
		opLookup: (*Server).lookup, opGetattr: (*Server).getattr, opSetattr: (*Server).setattr, opReadlink: (*Server).readlink,
		opSymlink: (*Server).symlink, opMknod: (*Server).mknod, opMkdir: (*Server).mkdir, opLink: (*Server).link,
		opUnlink: (*Server).unlink, opRmdir: (*Server).rmdir, opRename: (*Server).rename, opRename2: (*Server).rename,
		opOpen: (*Server).open, opCreate: (*Server).create, opTmpfile: (*Server).tmpfile, opRelease: (*Server).release,
		opRead: (*Server).read, opWrite: (*Server).write, opFlush: (*Server).flush, opFsync: (*Server).fsync,
		opLseek: (*Server).lseek, opFallocate: (*Server).fallocate, opCopyFileRange: (*Server).copyFileRange,
		opOpendir: (*Server).opendir, opReaddir: (*Server).readdir, opReaddirplus: (*Server).readdir,
		opReleasedir: (*Server).release, opFsyncdir: (*Server).fsync,
		opGetxattr: (*Server).getxattr, opSetxattr: (*Server).setxattr, opListxattr: (*Server).listxattr, opRemovexattr: (*Server).removexattr,
		opGetlk: (*Server).getlk, opSetlk: (*Server).setlk, opSetlkw: (*Server).setlk,
	}
}

// init agrees on the protocol. What it agrees on never depends on anything, so a server that
// takes the place of another need not be told.
func (s *Server) init(r *request) error {
	const (
		major, minor = 7, 40
		flags        = initAsyncRead | initPosixLocks | initAtomicTrunc | initBigWrites | initFlockLocks | initAutoInval |
			initReaddirplus | initReaddirAuto | initParallelDir | initMaxPages | initCacheSymlinks | initKillPrivV2
	)
	theirs, theirMinor, readahead, offered := r.body.u32(), r.body.u32(), r.body.u32(), r.body.u32()
	if theirs != major || theirMinor < 36 || offered&flags != flags {
		return fmt.Errorf("the guest's FUSE %d.%d lacks features %#x: %w", theirs, theirMinor, flags&^offered, unix.EPROTO)
	}
	s.reset() // the guest has mounted it anew
	s.watchNode(s.root)
	a := &r.ans
	a.u32(major)
	a.u32(minor)
	a.u32(readahead)
	a.u32(flags)
	a.u16(64) // requests in the background
	a.u16(48) // of these, when the guest holds back
	a.u32(MaxWrite)
	a.u32(1) // nanoseconds of time stamps' granularity
	a.u16(MaxWrite / 4096)
	a.b = append(a.b, make([]byte, 64-len(a.b))...)
	return nil
}

// Requests returns how many requests were served, but for those that repeat the host's
// changes and those by which the guest forgets.
func (s *Server) Requests() uint64 { return s.requests.Load() }

func (s *Server) nothing(*request) error { return nil }

func (s *Server) forgetOne(r *request) error {
	s.forget(r.node, r.body.u64())
	return nil
}

func (s *Server) forgetMany(r *request) error {
	n := r.body.u32()
	r.body.u32()
	for ; n > 0 && len(r.body.b) >= 16; n-- {
		id := r.body.u64()
		s.forget(id, r.body.u64())
	}
	return nil
}

// interrupt ends the wait of another request.
func (s *Server) interrupt(r *request) error {
	unique := r.body.u64()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if cancel := s.waiting[unique]; cancel != nil {
		cancel()
	}
	return nil
}

func (s *Server) statfs(r *request) error {
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	fd, err := s.hold(n)
	if err != nil {
		return err
	}
	defer s.fds.release(&n.slot)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	a := &r.ans
	for _, v := range []uint64{st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree} {
		a.u64(v)
	}
	for _, v := range []uint32{uint32(st.Bsize), uint32(min(st.Namelen, maxName)), uint32(st.Frsize), 0, 0, 0, 0, 0, 0, 0} {
		a.u32(v)
	}
	return nil
}

func (s *Server) syncfs(r *request) error {
	fd, err := unix.Openat(s.root.slot.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// Path is a path in this process that leads to the share's directory, wherever that is now.
func (s *Server) Path() string { return procPath(s.root.slot.fd) }
