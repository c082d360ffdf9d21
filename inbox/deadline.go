package inbox

import (
	"sync"
	"time"
)

// Deadline is a time until which somebody waits. Its methods are called with the lock
// of Cond.
type Deadline struct {
	Cond *sync.Cond // of what waits; set before use

	timer   *time.Timer
	expired bool
	gen     int // of the last set; a late timer of an older one does nothing
}

// Passed tells whether it is over.
func (d *Deadline) Passed() bool { return d.expired }

// Set sets the time, and wakes who waits once it has come. Zero is none.
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

// Stop forgets the time; nobody is woken.
func (d *Deadline) Stop() {
	d.gen++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
