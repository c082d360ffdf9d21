package share

import (
	"slices"
	"sync"
	"time"
)

// place is an entry of a directory.
type place struct {
	dir  *node
	name string
}

// pendingChange is a change on the host of which the guest has not heard.
type pendingChange struct {
	what     kinds
	from, to place // to is of what was renamed
}

// pendingChanges are changes in the order in which they began. Several of one entry are one,
// unless it was renamed in between.
type pendingChanges struct {
	ready chan struct{} // has an element when there is something to take

	mu   sync.Mutex
	list []*pendingChange
	last map[place]*pendingChange // in list, and the last one of an entry
}

// maxPending bounds the changes that wait. More are lost, and all is compared instead.
const maxPending = 128 << 10

func newPendingChanges() *pendingChanges {
	return &pendingChanges{ready: make(chan struct{}, 1), last: map[place]*pendingChange{}}
}

// add adds a change. It returns false when too many wait.
func (p *pendingChanges) add(c pendingChange) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.last[c.from]; old != nil && old.what&renamed == 0 && c.what&renamed == 0 {
		old.what |= c.what
		return true
	}
	if len(p.list) >= maxPending && c.what&checked == 0 { // there are no more checks than nodes
		return false
	}
	p.list = append(p.list, &c)
	p.last[c.from] = &c
	if c.what&renamed != 0 {
		p.last[c.to] = &c
	}
	p.wake()
	return true
}

func (p *pendingChanges) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// take returns the next changes, at most so many, and none of an entry twice.
func (p *pendingChanges) take(most int) (batch []*pendingChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := map[place]bool{}
	for _, c := range p.list {
		if len(batch) == most || taken[c.from] || c.what&renamed != 0 && taken[c.to] {
			break
		}
		batch = append(batch, c)
		taken[c.from] = true
		if c.what&renamed != 0 {
			taken[c.to] = true
		}
	}
	for at := range taken {
		if c := p.last[at]; c != nil && slices.Contains(batch, c) {
			delete(p.last, at)
		}
	}
	clear(p.list[:len(batch)])
	if p.list = p.list[len(batch):]; len(p.list) > 0 {
		p.wake()
	}
	return batch
}

// clear forgets all changes.
func (p *pendingChanges) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list, p.last = nil, map[place]*pendingChange{}
}

// absences are names of which the guest was told that they are not there.
type absences struct {
	until map[place]time.Time
	queue []absence // in the order of their ends
}

type absence struct {
	at    place
	until time.Time
}

// maxAbsences bounds them: a guest may ask for any name.
const maxAbsences = 64 << 10

// add remembers a name. It returns false if there are too many.
func (a *absences) add(at place, until time.Time) bool {
	now := time.Now()
	for len(a.queue) > 0 && a.queue[0].until.Before(now) {
		if first := a.queue[0]; a.until[first.at].Equal(first.until) {
			delete(a.until, first.at)
		}
		a.queue = a.queue[1:]
	}
	if len(a.queue) >= maxAbsences {
		return false
	}
	if a.until == nil {
		a.until = map[place]time.Time{}
	}
	a.until[at] = until
	a.queue = append(a.queue, absence{at, until})
	return true
}
