package share

import (
	"sync"

	"golang.org/x/sys/unix"
)

// slot holds a descriptor that may be closed while nobody uses it.
type slot struct {
	fd     int // 0 for none
	refs   int
	pinned bool // it could not be opened again
	dead   bool // nobody will use it any more
	opened int  // how often it was opened
	// In the list of those that may be closed; nil for one that is not in it.
	prev, next *slot
}

// fdTable bounds the open descriptors of slots. It keeps those that were used last.
type fdTable struct {
	mu    sync.Mutex
	limit int
	open  int
	root  slot // of the list of those without users, most recently used first
}

func newFDTable(limit int) *fdTable {
	t := &fdTable{limit: limit}
	t.root.prev, t.root.next = &t.root, &t.root
	return t
}

func (t *fdTable) unlink(s *slot) {
	if s.next != nil {
		s.prev.next, s.next.prev = s.next, s.prev
		s.prev, s.next = nil, nil
	}
}

// hold returns the slot's descriptor, which stays open until release. If there is none, it
// calls open, without a lock.
func (t *fdTable) hold(s *slot, open func() (int, error)) (int, error) {
	t.mu.Lock()
	if s.fd == 0 {
		t.mu.Unlock()
		fd, err := open()
		if err != nil {
			return -1, err
		}
		t.mu.Lock()
		if s.fd != 0 { // another was faster
			defer unix.Close(fd)
		} else {
			t.put(s, fd)
		}
	}
	t.unlink(s)
	s.refs++
	fd := s.fd
	t.mu.Unlock()
	return fd, nil
}

// put gives an empty slot a descriptor. The caller holds the lock.
func (t *fdTable) put(s *slot, fd int) {
	s.fd = fd
	s.opened++
	t.open++
	t.closeIdle()
}

// shrink lowers the limit, because the host gives no more descriptors, and reports whether it
// could close any.
func (t *fdTable) shrink() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = max(t.open*3/4, 16)
	before := t.open
	t.closeIdle()
	return t.open < before
}

// closeIdle closes those that were not used for longest, down to the limit.
func (t *fdTable) closeIdle() {
	for t.open > t.limit && t.root.prev != &t.root {
		t.closeSlot(t.root.prev)
	}
}

// adopt gives a new slot a descriptor that is open already.
func (t *fdTable) adopt(s *slot, fd int, pinned bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(s, fd)
	s.pinned = pinned
	t.idle(s)
}

// idle adds a slot without users to the list, unless it has to keep its descriptor.
func (t *fdTable) idle(s *slot) {
	switch {
	case s.refs > 0 || s.fd == 0 || s.next != nil:
	case s.dead:
		t.closeSlot(s)
	case !s.pinned:
		s.prev, s.next = &t.root, t.root.next
		s.prev.next, s.next.prev = s, s
		t.closeIdle()
	}
}

// closeSlot closes a descriptor without users. Close under the lock is fine: it is a
// descriptor without locks and without unwritten data of ours.
func (t *fdTable) closeSlot(s *slot) {
	t.unlink(s)
	_ = unix.Close(s.fd)
	s.fd = 0
	t.open--
}

// release ends a hold.
func (t *fdTable) release(s *slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.refs--
	t.idle(s)
}

// isOpen reports whether the slot has a descriptor now.
func (t *fdTable) isOpen(s *slot) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.fd != 0
}

// pin has the slot keep its descriptor, which it must have. It fails when too many do.
func (t *fdTable) pin(s *slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.pinned = true
	t.unlink(s)
}

// discard closes the descriptor as soon as nobody uses it. The slot may be used again, and
// opened anew.
func (t *fdTable) discard(s *slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.dead, s.pinned = true, false
	t.unlink(s)
	t.idle(s)
}
