package agent

import (
	"cmp"
	"context"
	"time"

	"github.com/lsub/lsub/guest/guestv1"
)

// idleDefault is how long a distro is idle before it is stopped, where nobody
// says otherwise.
const idleDefault = 5 * time.Minute

// idleLimit returns how long the distro may be idle; below 0: for ever.
func (d *distro) idleLimit() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return cmp.Or(d.idle, d.a.cfg.Idle, idleDefault)
}

// watchIdle stops the distro when it has been idle for long enough. It returns
// when the distro is gone.
//
// A look at its processes is cheap but not free, so it is taken ten times in
// the time that the distro may be idle. What comes and goes between two looks
// and is no session is not seen.
func (d *distro) watchIdle() {
	for {
		limit := d.idleLimit()
		pause := time.Hour
		if limit > 0 {
			pause = min(max(limit/10, 100*time.Millisecond), 30*time.Second)
		}
		select {
		case <-d.gone:
			return
		case <-d.reconfigured:
			continue
		case <-time.After(pause):
		}
		if limit > 0 && d.idleFor() >= limit && d.stopIdle(limit) {
			return
		}
	}
}

// idleFor looks at the distro, and returns for how long it has been idle. One
// that is in use is not looked at.
func (d *distro) idleFor() time.Duration {
	if !d.inUse() && d.occupied() {
		d.mu.Lock()
		d.idleSince = time.Time{}
		d.mu.Unlock()
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.busy():
		return 0
	case d.idleSince.IsZero():
		d.idleSince = time.Now()
	}
	return time.Since(d.idleSince)
}

// occupied tells whether there is something in the distro that keeps it up.
func (d *distro) occupied() bool {
	if d.fastPathClients() > 0 {
		return true
	}
	for range d.occupants() {
		return true
	}
	return false
}

// stopIdle stops the distro, unless somebody has come in meanwhile.
func (d *distro) stopIdle(limit time.Duration) bool {
	d.mu.Lock()
	if d.busy() || d.stopping || d.idleSince.IsZero() || time.Since(d.idleSince) < limit {
		d.mu.Unlock()
		return false
	}
	d.stopping = true // from here on, those who come wait for the next start
	d.mu.Unlock()
	d.a.log.Info("distro is idle; stop it", "distro", d.spec.Name, "for", limit)
	d.end(stopGrace)
	return true
}

// busy tells whether commands or connections from the host use the distro. The caller
// holds d.mu.
func (d *distro) busy() bool { return d.sessions > 0 || d.forwards > 0 }

func (d *distro) inUse() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.busy()
}

// beginSession keeps the distro from being stopped as idle until endSession. It is false
// where the distro stops already.
func (d *distro) beginSession() bool { return d.acquire(&d.sessions) }

// endSession ends what beginSession began.
func (d *distro) endSession() { d.release(&d.sessions) }

// acquire adds one to users, which is d.sessions or d.forwards. It is false where the
// distro stops already.
func (d *distro) acquire(users *int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		return false
	}
	*users++
	d.idleSince = time.Time{}
	return true
}

// release takes one off users again.
func (d *distro) release(users *int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*users--
	if !d.busy() {
		d.idleSince = time.Now()
	}
}

// configure gives the distro that runs the limits and the idle time of spec.
// ctx bounds the wait for one that starts.
func (d *distro) configure(ctx context.Context, spec *guestv1.Distro) error {
	if err := d.setLimits(ctx, spec.Limits); err != nil {
		return err
	}
	d.mu.Lock()
	d.idle = time.Duration(spec.IdleNs)
	d.mu.Unlock()
	select {
	case d.reconfigured <- struct{}{}:
	default: // it is about to look anyway
	}
	return nil
}
