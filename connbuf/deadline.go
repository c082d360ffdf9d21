package connbuf

import (
	"sync"
	"time"
)

// Deadline is a read or write deadline of a connection. Call its methods with the lock
// of Cond held.
type Deadline struct {
	Cond *sync.Cond // on which the blocked calls wait; set before use

	timer   *time.Timer
	expired bool
	gen     int // counts calls of Set and Stop, so that an old timer does nothing
}

// Passed reports whether the deadline has passed.
func (d *Deadline) Passed() bool { return d.expired }

// Set sets the deadline. Once it passes, all that wait on Cond are woken. The zero time
// means no deadline.
func (d *Deadline) Set(t time.Time) {
	d.Stop()
	d.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		d.Cond.Broadcast()
		return
	}
	gen := d.gen
	d.timer = time.AfterFunc(left, func() {
		d.Cond.L.Lock()
		defer d.Cond.L.Unlock()
		if d.gen == gen {
			d.expired = true
			d.Cond.Broadcast()
		}
	})
}

// Stop removes the deadline and wakes nobody.
func (d *Deadline) Stop() {
	d.gen++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
