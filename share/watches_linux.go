package share

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// For how long the guest may believe what it was told of entries and attributes. The long
// time is for those in watched directories: a change on the host ends it at once. It ends
// nevertheless, for changes that no watch tells: through a hard link that was made since in a
// directory that is not watched, or through a mapping of a file that stays open.
const (
	shortValidity = time.Second
	longValidity  = time.Minute
	// promiseSlack is how much later than an answer is made its time may begin in the guest.
	promiseSlack = 10 * time.Second
)

// maxWatches bounds the directories that are watched, each of which costs the kernel and us
// some 2 KiB.
const maxWatches = 64 << 10

// watch is a directory that is watched.
type watch struct {
	node       *node
	key        watchKey
	until      time.Time // the guest relies on it
	asked      time.Time // when the guest was told the directory's own attributes
	prev, next *watch    // in the order of use
}

// watches are the watched directories. The least recently used goes first, but none that the
// guest still relies on.
type watches struct {
	watcher watcher // nil where there is none

	mu    sync.Mutex
	limit int
	byKey map[watchKey]*watch
	root  watch // of the list, most recently used first
	// promising: there is somebody who tells the guest of changes.
	promising bool
	absent    absences
}

func newWatches(limit int) *watches {
	t := &watches{limit: limit, byKey: map[watchKey]*watch{}}
	if t.limit == 0 {
		t.limit = maxWatches
		if b, err := os.ReadFile("/proc/sys/fs/fanotify/max_user_marks"); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				t.limit = min(t.limit, n/2) // the user's other programs want some
			}
		}
	}
	t.root.prev, t.root.next = &t.root, &t.root
	if f, err := newFanotify(); err == nil {
		t.watcher = f
	}
	return t
}

func (t *watches) use(w *watch) {
	if w.next != nil {
		w.prev.next, w.next.prev = w.next, w.prev
	}
	w.prev, w.next = &t.root, t.root.next
	w.prev.next, w.next.prev = w, w
}

// drop takes a watch out of the table. The caller holds the lock.
func (t *watches) drop(w *watch) {
	w.prev.next, w.next.prev = w.next, w.prev
	w.prev, w.next = nil, nil
	if t.byKey[w.key] == w {
		delete(t.byKey, w.key)
	}
	w.node.watch = nil
}

// watched returns the watch of a directory, or nil.
func (t *watches) watched(n *node) *watch {
	if n == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.watch
}

// promise lets the guest rely on a watch for the long time, and reports whether it may. What
// it is told has to be found out after the watch was placed.
func (t *watches) promise(w *watch) bool {
	if w == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.promising || w.node.watch != w {
		return false
	}
	w.until = time.Now().Add(longValidity + promiseSlack)
	t.use(w)
	return true
}

// promiseAbsent is promise for a name that is not there.
func (t *watches) promiseAbsent(w *watch, name string) bool {
	if !t.promise(w) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.absent.add(place{w.node, name}, w.until)
}

// watch watches a directory to which at and name lead. It returns nil if that cannot be.
func (s *Server) watch(n *node, at int, name string) *watch {
	t := s.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.watch != nil || t.watcher == nil || n.format != unix.S_IFDIR {
		return n.watch
	}
	if len(t.byKey) >= t.limit && !s.evict() {
		return nil
	}
	key, err := t.watcher.add(at, name)
	if err == errWatchLimit && s.evict() {
		key, err = t.watcher.add(at, name)
	}
	if err != nil {
		return nil
	}
	if old := t.byKey[key]; old != nil {
		t.drop(old) // a node that the host has moved, and the guest has found again
	}
	w := &watch{node: n, key: key}
	n.watch, t.byKey[key] = w, w
	t.use(w)
	return w
}

// evict ends the least recently used watch, if the guest does not rely on it. The caller
// holds the lock.
func (s *Server) evict() bool {
	t := s.watches
	w := t.root.prev
	if w == &t.root || time.Now().Before(w.until) {
		return false
	}
	s.endWatch(w.node)
	t.drop(w)
	return true
}

// endWatch has the watcher forget a directory. One that is not where it was stays watched in
// vain until it goes.
func (s *Server) endWatch(n *node) {
	if fd, err := s.hold(n); err == nil {
		_ = s.watches.watcher.remove(fd)
		s.fds.release(&n.slot)
	}
}

// watchNode watches a directory.
func (s *Server) watchNode(n *node) *watch {
	if w := s.watches.watched(n); w != nil {
		return w
	}
	fd, err := s.hold(n)
	if err != nil {
		return nil
	}
	defer s.fds.release(&n.slot)
	return s.watch(n, fd, ".")
}

// watchEntry watches a directory that was just found as an entry.
func (s *Server) watchEntry(n *node, at int, name string) {
	if n.format != unix.S_IFDIR || s.watches.watched(n) != nil || s.watch(n, at, name) == nil {
		return
	}
	var st unix.Statx_t
	if statAt(at, name, &st) != nil || identOf(&st) != n.key { // replaced in between
		s.unwatch(n)
	}
}

// unwatch ends the watch of a node that the guest has forgotten.
func (s *Server) unwatch(n *node) {
	t := s.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.watch != nil {
		s.endWatch(n)
		t.drop(n.watch)
	}
}

// unwatchAll ends all watches.
func (s *Server) unwatchAll() {
	t := s.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watcher == nil {
		return
	}
	_ = t.watcher.removeAll()
	for t.root.next != &t.root {
		t.drop(t.root.next)
	}
	t.absent = absences{}
}

// validity returns for how long the guest may believe in an entry and in attributes, which
// were found out with the watch on the entry's directory, or without one (nil).
func (s *Server) validity(w *watch, st *unix.Statx_t) (entry, attr time.Duration) {
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case !dir && st.Nlink > 1: // it may change under another name
		return shortValidity, shortValidity
	case !s.watches.promise(w):
		return shortValidity, shortValidity
	case dir:
		// A directory's own attributes depend on its own watch. And who asks for them by
		// getattr has it in use, so that a change reaches it.
		return longValidity, shortValidity
	}
	return longValidity, longValidity
}

// watchFor returns the watch that tells of changes of a node's attributes, or nil.
func (s *Server) watchFor(n *node) *watch {
	if n.format == unix.S_IFDIR {
		return s.watchNode(n)
	}
	parent, _ := s.place(n)
	return s.watches.watched(parent)
}

// attrValidity is validity for an answer that has attributes only, found out with the watch
// of watchFor.
func (s *Server) attrValidity(n *node, w *watch, st *unix.Statx_t) time.Duration {
	if n.format == unix.S_IFDIR {
		if s.watches.promise(w) {
			s.watches.mu.Lock()
			defer s.watches.mu.Unlock()
			w.asked = time.Now()
			return longValidity
		}
		return shortValidity
	}
	if parent, _ := s.place(n); w == nil || parent != w.node { // moved in between
		return shortValidity
	}
	_, attr := s.validity(w, st)
	return attr
}
