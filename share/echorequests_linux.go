package share

import (
	"golang.org/x/sys/unix"
)

// isEcho reports whether the agent's thread makes a request, to repeat what has happened on
// the host.
func (s *Server) isEcho(r *request) bool {
	return r.pid != 0 && r.pid == s.echoes.thread.Load()
}

// serveEcho answers a request of the agent's thread. It changes nothing on the host, and
// says yes only to what was ordered.
func (s *Server) serveEcho(r *request) error {
	switch r.op {
	case opLookup:
		return s.echoLookup(r)
	case opUnlink, opRmdir:
		return s.echoRemove(r)
	case opRename, opRename2:
		return s.echoRename(r)
	case opMknod, opMkdir, opSymlink:
		return s.echoMake(r)
	case opSetattr:
		return s.echoSetattr(r)
	case opGetattr:
		return s.echoGetattr(r)
	case opOpen:
		return s.echoOpen(r)
	case opSyncfs:
		return nil
	case opInit, opDestroy, opForget, opBatchForget, opInterrupt, opRelease, opReleasedir, opOpendir, opStatfs, opReadlink, opGetxattr, opListxattr:
		return operations[r.op](s, r)
	}
	return unix.EPERM
}

// echoEntry reads the name of a request, and returns what is expected of it: the directory's
// entry, and nil if nothing is.
func (s *Server) echoEntry(r *request) (at place, exp *expected, err error) {
	at.name = r.body.name()
	if at.dir, err = s.node(r.node); err == nil {
		exp = s.echoes.expected[at]
	}
	return at, exp, err
}

func (s *Server) echoLookup(r *request) error {
	whole := r.body
	s.echoes.mu.Lock()
	_, exp, err := s.echoEntry(r)
	var e expected
	if exp != nil {
		e = *exp
	}
	s.echoes.mu.Unlock()
	switch {
	case err != nil:
		return err
	case exp == nil || e.phase == phaseAfter:
		r.body = whole
		return s.lookup(r)
	case e.phase == phaseEmpty:
		entry(&r.ans, 0, &attr{}, 0, 0)
		return nil
	case e.before == nil && e.at.dir != nil: // renamed, and the guest knows neither name
		at := e.at
		dir, fd, err := s.dir(at.dir.id)
		if err != nil {
			return err
		}
		defer s.fds.release(&dir.slot)
		return s.found(r, dir, fd, at.name)
	}
	n := e.before
	if n == nil {
		n = s.ghost(e.ghost)
	} else {
		s.mu.Lock()
		n.lookups++
		s.mu.Unlock()
	}
	var st unix.Statx_t
	t := &attr{ino: n.key.ino, mode: n.format | 0o600, nlink: 1}
	if s.stat(n, &st) == nil {
		t = s.attrOf(&st, s.owner(n, &st))
	}
	entry(&r.ans, n.id, t, 0, 0)
	return nil
}

// ghost returns a node of a file that is not there any more, for the guest to remove.
func (s *Server) ghost(format uint32) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	n := &node{id: s.lastID, key: ident{ino: s.lastID}, format: format, lookups: 1}
	s.nodes[n.id] = n
	return n
}

func (s *Server) echoRemove(r *request) error {
	s.echoes.mu.Lock()
	defer s.echoes.mu.Unlock()
	at, exp, err := s.echoEntry(r)
	if err != nil {
		return err
	}
	if exp == nil || exp.phase != phaseBefore || exp.to != nil {
		return unix.EPERM
	}
	exp.phase = phaseAfter
	if exp.make {
		exp.phase = phaseEmpty
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := exp.before; n != nil && n.parent == at.dir && n.name == at.name {
		n.setPlace(nil, "")
	}
	return nil
}

func (s *Server) echoRename(r *request) error {
	toDir := r.body.u64()
	if r.op == opRename2 {
		if r.body.u32() != 0 { // flags
			return unix.EPERM
		}
		r.body.u32()
	}
	s.echoes.mu.Lock()
	defer s.echoes.mu.Unlock()
	_, exp, err := s.echoEntry(r)
	if err != nil {
		return err
	}
	to := place{name: r.body.name()}
	if to.dir, err = s.node(toDir); err != nil {
		return err
	}
	if exp == nil || exp.phase != phaseBefore || exp.to == nil || *exp.to != to {
		return unix.EPERM
	}
	exp.phase = phaseAfter
	if target := s.echoes.expected[to]; target != nil {
		target.phase = phaseAfter
	}
	if exp.before != nil {
		s.mu.Lock()
		exp.before.setPlace(to.dir, to.name)
		s.mu.Unlock()
	}
	return nil
}

func (s *Server) echoMake(r *request) error {
	switch r.op {
	case opMknod:
		r.body.take(16)
	case opMkdir:
		r.body.take(8)
	}
	s.echoes.mu.Lock()
	at, exp, err := s.echoEntry(r)
	ok := exp != nil && exp.make && exp.phase == phaseEmpty
	if ok {
		exp.phase = phaseAfter
	}
	s.echoes.mu.Unlock()
	if err != nil {
		return err
	}
	if !ok {
		return unix.ENOENT // the thread wants only to have the kernel look it up
	}
	dir, fd, err := s.dir(at.dir.id)
	if err != nil {
		return err
	}
	defer s.fds.release(&dir.slot)
	return s.found(r, dir, fd, at.name)
}

// echoSetattr answers with the attributes as they are.
func (s *Server) echoSetattr(r *request) error {
	r.body.b = nil
	return s.answerAttr(r, nil)
}

// echoGetattr answers with a time of modification that is not true, and that nobody keeps.
// The guest's kernel takes that as a change, and drops its pages: that the file is of the
// same size and time as before says nothing.
func (s *Server) echoGetattr(r *request) error {
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	if n.format != unix.S_IFREG {
		return s.getattr(r)
	}
	var st unix.Statx_t
	if err := s.stat(n, &st); err != nil {
		return err
	}
	st.Mtime.Nsec ^= 1
	r.putAttr(s.attrOf(&st, s.owner(n, &st)), 0)
	return nil
}

// echoOpen answers with no file. The kernel drops its pages, as at each open of a file that
// has changed.
func (s *Server) echoOpen(r *request) error {
	n, err := s.node(r.node)
	if err != nil {
		return err
	}
	if n.format != unix.S_IFREG {
		return unix.ENXIO
	}
	r.putOpen(&file{}, openNoFlush)
	return nil
}
