package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/share/echo"
)

// echoes is what the guest repeats of the host's changes. The thread of the guest that does
// so is known by its number, which each request has from the guest's kernel. No request of
// that thread changes anything: it is answered as if it had.
type echoes struct {
	busy    sync.Mutex // held by ServeEchoes
	thread  atomic.Uint32
	epoch   atomic.Uint64 // counts the times that changes may have been lost
	pending *pendingChanges

	// deferred are changes in directories that are not where they were: that those were moved
	// is still to be heard. Only ServeEchoes uses it.
	deferred map[place]kinds

	mu       sync.Mutex
	expected map[place]*expected // of the orders that are being carried out
}

// expected is an entry that an echo is about to change, as the echo's thread finds it.
type expected struct {
	phase phase
	// before is the node that the entry has until the guest has removed or renamed it; nil
	// for one that the guest does not know.
	before *node
	// ghost is the format of an entry that is not there any more, and that the guest does
	// not know.
	ghost uint32
	make  bool
	// at is where an entry that the guest does not know is now, if it was renamed.
	at place
	// to is where the entry is renamed to.
	to *place
}

type phase int

const (
	phaseBefore phase = iota // the old entry is there
	phaseEmpty               // nothing is there
	phaseAfter               // as it is on the host
)

var errEchoBusy = errors.New("changes are told on another connection already")

// ServeEchoes tells the guest's agent, on conn, of what changes on the host, until conn ends
// or ctx is done. Package echo has what they say. While it runs, the guest may believe for
// long what it was told. The caller closes conn.
func (s *Server) ServeEchoes(ctx context.Context, conn io.ReadWriter) error {
	e := &s.echoes
	if !e.busy.TryLock() {
		return errEchoBusy
	}
	defer e.busy.Unlock()
	thread, err := echo.ReadNumber(conn)
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the agent's thread: %w", err)
	}
	e.thread.Store(thread)
	s.setPromising(true)
	defer func() {
		s.setPromising(false)
		e.thread.Store(0)
		e.expect(nil)
		e.pending.clear()
		e.deferred = nil
	}()
	s.compareAll() // what an earlier connection has told may be old
	acks := make(chan error)
	go func() {
		for {
			_, err := echo.ReadNumber(conn)
			select {
			case acks <- err:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-acks:
			return ended(err)
		case <-e.pending.ready:
		}
		orders, expect := s.orders(e.pending.take(echo.MaxBatch))
		if len(orders) == 0 {
			continue
		}
		e.expect(expect)
		if err := echo.WriteBatch(conn, orders); err != nil {
			return ended(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-acks:
			if err != nil {
				return ended(err)
			}
		}
		e.expect(nil)
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) || err == nil {
		return nil
	}
	return err
}

func (e *echoes) expect(m map[place]*expected) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expected = m
}

// Promising reports whether the guest may believe for long what it is told.
func (s *Server) Promising() bool {
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	return s.watches.promising
}

func (s *Server) setPromising(on bool) {
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	s.watches.promising = on
}

// readChanges hears of changes until the watcher is closed.
func (s *Server) readChanges() {
	for {
		all, err := s.watches.watcher.read()
		if err != nil {
			s.setPromising(false) // nothing ends the times any more
			return
		}
		for i := range all {
			s.heard(&all[i])
		}
	}
}

// answerTime bounds how long an answer is on its way.
const answerTime = time.Second

// heard notes a change for the guest.
func (s *Server) heard(c *change) {
	t := s.watches
	t.mu.Lock()
	on, from, to := t.promising, t.byKey[c.dir], t.byKey[c.toDir]
	if on && c.what&(made|removed|renamed) != 0 {
		now := time.Now()
		for _, w := range []*watch{from, to} {
			// An answer with the directory's attributes from before may still be on its way, and
			// must not be the last. The kernel does not take an older one after a newer one.
			if w != nil && now.Before(w.asked.Add(answerTime)) {
				defer s.echoes.pending.add(pendingChange{what: refreshed, from: place{w.node, ""}})
			}
		}
	}
	t.mu.Unlock()
	if c.own || !on {
		return
	}
	p := pendingChange{what: c.what}
	switch {
	case c.what == lost:
		s.compareAll()
		return
	case c.what&renamed != 0 && from != nil && to != nil:
		p.from, p.to = place{from.node, c.name}, place{to.node, c.to}
	case c.what&renamed != 0 && from != nil:
		p.what, p.from = c.what&directory|removed, place{from.node, c.name}
	case c.what&renamed != 0 && to != nil:
		p.what, p.from = c.what&directory|made, place{to.node, c.to}
	case from != nil:
		p.from = place{from.node, c.name}
	default:
		return
	}
	if p.from.name == "." {
		p.from.name = ""
	}
	if !s.echoes.pending.add(p) {
		s.compareAll()
	}
}

// compareAll has all that the guest relies on compared with what it was told: changes were
// lost.
func (s *Server) compareAll() {
	t, p := s.watches, s.echoes.pending
	s.echoes.epoch.Add(1)
	p.clear()
	var places []place
	now := time.Now()
	t.mu.Lock()
	for at, until := range t.absent.until {
		if now.Before(until) {
			places = append(places, at)
		}
	}
	for w := t.root.next; w != &t.root; w = w.next {
		if now.Before(w.until) {
			places = append(places, place{w.node, ""})
		}
	}
	t.mu.Unlock()
	s.mu.RLock()
	for _, n := range s.nodes {
		if n.parent != nil {
			places = append(places, place{n.parent, n.name})
		}
	}
	s.mu.RUnlock()
	for _, at := range places {
		p.add(pendingChange{what: checked, from: at})
	}
}

// orders returns what the guest has to do for changes, and what its requests find meanwhile.
func (s *Server) orders(batch []*pendingChange) (orders []echo.Order, expect map[place]*expected) {
	expect = map[place]*expected{}
	moved := false
	for _, c := range batch {
		moved = moved || c.what&directory != 0 && c.what&(made|removed|renamed) != 0
		var o echo.Order
		switch {
		case c.what&renamed != 0:
			o = s.renameOrder(c, expect)
		case c.from.name == "":
			o = s.selfOrder(c)
		default:
			o = s.entryOrder(c, expect)
		}
		if o.Do != 0 {
			o.Dir, o.Path, o.Name = c.from.dir.id, s.path(c.from.dir), c.from.name
			if o.ToDir != 0 {
				o.ToPath = s.path(c.to.dir)
			}
			orders = append(orders, o)
		}
	}
	if moved {
		again := s.echoes.deferred
		s.echoes.deferred = nil
		for at, what := range again {
			s.echoes.pending.add(pendingChange{what: what | checked, from: at})
		}
	}
	return orders, expect
}

// maxDeferred bounds the changes in directories that have moved.
const maxDeferred = 16 << 10

// later puts a change off until it is known where its directory is.
func (s *Server) later(c *pendingChange) {
	e := &s.echoes
	s.mu.Lock()
	c.from.dir.listed = listedUnder{}
	s.mu.Unlock()
	if len(e.deferred) >= maxDeferred {
		e.deferred = nil
		s.echoes.epoch.Add(1)
	}
	if e.deferred == nil {
		e.deferred = map[place]kinds{}
	}
	e.deferred[c.from] |= c.what
}

// path returns a node's path from the root, or "" if it has none, or a very long one.
func (s *Server) path(n *node) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	length := 0
	for ; n != s.root; n = n.parent {
		if length += len(n.name) + 1; n.parent == nil || length > 4000 {
			return ""
		}
		names = append(names, n.name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// kid returns the node that the guest knows at a place, or nil.
func (s *Server) kid(at place) *node {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return at.dir.kids[at.name]
}

// statPlace returns what is at a place on the host. The error is ESTALE if the directory is
// not where it was.
func (s *Server) statPlace(at place, st *unix.Statx_t) error {
	fd, err := s.hold(at.dir)
	if err != nil {
		return unix.ESTALE
	}
	defer s.fds.release(&at.dir.slot)
	return statAt(fd, at.name, st)
}

// selfOrder is about a directory itself.
func (s *Server) selfOrder(c *pendingChange) (o echo.Order) {
	if c.what&checked != 0 {
		var st unix.Statx_t
		if s.stat(c.from.dir, &st) != nil || !s.differs(c.from.dir, &st) {
			return o
		}
	}
	if o.Do = echo.Attributes; c.what == refreshed {
		o.Do = echo.Refresh
	}
	return o
}

// differs reports whether a node is not as the guest was told.
func (s *Server) differs(n *node, st *unix.Statx_t) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return n.told != stampOf(st)
}

// entryOrder is about an entry that was not renamed.
func (s *Server) entryOrder(c *pendingChange, expect map[place]*expected) (o echo.Order) {
	old := s.kid(c.from)
	var st unix.Statx_t
	err := s.statPlace(c.from, &st)
	if err == unix.ESTALE {
		s.later(c)
		return o
	}
	there := err == nil
	same := there && old != nil && old.key == identOf(&st)
	exp := &expected{phase: phaseEmpty, before: old, make: there}
	switch {
	case same && c.what&(made|removed) == 0:
		o.Do = s.contentsOrder(c, old, &st)
		return o
	case there && old == nil && c.what&(made|removed|checked) == 0: // the guest watches the directory, perhaps
		o.Do = s.contentsOrder(c, old, &st)
		return o
	case there:
		o.Do = echo.Make | s.contentsOrder(c, nil, &st)
		o.Mode = s.modeAt(c.from, &st)
		if old != nil && (!same || c.what&removed != 0) {
			o.Do |= removeOrder(old.format)
			exp.phase = phaseBefore
		}
	case old != nil:
		o.Do, exp.phase = removeOrder(old.format), phaseBefore
	case c.what&removed != 0 && c.what&made == 0:
		exp.phase, exp.ghost = phaseBefore, unix.S_IFREG
		if c.what&directory != 0 {
			exp.ghost = unix.S_IFDIR
		}
		o.Do = removeOrder(exp.ghost)
	default: // it has come and gone
		return o
	}
	expect[c.from] = exp
	return o
}

func removeOrder(format uint32) echo.Do {
	if format == unix.S_IFDIR {
		return echo.Rmdir
	}
	return echo.Unlink
}

// contentsOrder is about a file itself. n is the node that the guest has of it, or nil.
func (s *Server) contentsOrder(c *pendingChange, n *node, st *unix.Statx_t) (do echo.Do) {
	what := c.what
	if what&checked != 0 && n != nil && s.differs(n, st) {
		what |= modified | attributes
	}
	if what&attributes != 0 {
		do |= echo.Attributes
	}
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		return do
	}
	if what&modified != 0 {
		do |= echo.Modify
	}
	if what&closedWrite != 0 {
		do |= echo.CloseWrite
	}
	return do
}

// modeAt is the mode of a file as the guest is told.
func (s *Server) modeAt(at place, st *unix.Statx_t) uint32 {
	var own *ownership
	if fd, err := s.hold(at.dir); err == nil {
		own = s.ownerAt(fd, at.name, st)
		s.fds.release(&at.dir.slot)
	}
	return s.attrOf(st, own).mode
}

// renameOrder is about an entry that was renamed.
func (s *Server) renameOrder(c *pendingChange, expect map[place]*expected) (o echo.Order) {
	moved, over := s.kid(c.from), s.kid(c.to)
	o = echo.Order{Do: echo.Rename, ToDir: c.to.dir.id, To: c.to.name}
	var st, left unix.Statx_t
	there := s.statPlace(c.to, &st) == nil
	if moved == nil && !there {
		if over != nil { // it has come and gone; what it has replaced is known
			s.echoes.pending.add(pendingChange{what: checked, from: c.to})
		}
		return echo.Order{}
	}
	if moved != nil && over == moved { // the guest has found it there already
		over = nil
	}
	if !there || moved != nil && identOf(&st) != moved.key || s.statPlace(c.from, &left) == nil {
		o.Do |= echo.Renew // more has happened since
	}
	expect[c.from] = &expected{before: moved, at: c.to, to: &c.to}
	target := &expected{before: over}
	if over == nil {
		target.phase = phaseEmpty
	}
	expect[c.to] = target
	return o
}
