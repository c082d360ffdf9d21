package supervisor

import (
	"sync"
	"time"
)

// usage counts who uses the guest. Its lock may be held while the one of life is taken.
type usage struct {
	mu     sync.Mutex
	active int       // how many use the guest
	begun  int       // how many have begun to, ever
	last   time.Time // when the last of them was done
}

// begin notes that somebody is about to use the guest; while they do, the VM is not
// shut down as idle. The caller calls done afterwards. With lasting, the time that the
// VM may be idle starts anew then: not so with questions, which would keep a VM up by
// looking at it.
func (u *usage) begin(lasting bool) (done func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active++
	u.begun++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.active--
		if lasting {
			u.last = time.Now()
		}
	}
}

// touch starts the time that the VM may be idle anew.
func (u *usage) touch() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = time.Now()
}
