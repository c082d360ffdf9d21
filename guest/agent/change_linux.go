package agent

import (
	"context"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// freezeTimeout is how long a distro may take to stand still for a snapshot: a
// process in an uninterruptible wait cannot be frozen.
const freezeTimeout = 2 * time.Second

// await waits for c to be closed.
func await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tellChange tells those who watch that a distro has come or gone. a.mu is held.
func (a *Agent) tellChange() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// whileStopped runs change while the distro does not run and cannot start.
func (a *Agent) whileStopped(ctx context.Context, id string, change func() error) error {
	for {
		a.mu.Lock()
		held := a.held[id]
		if held == nil {
			break
		}
		a.mu.Unlock()
		if err := await(ctx, held); err != nil {
			return err
		}
	}
	if d := a.distros[id]; d != nil {
		a.mu.Unlock()
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_RUNNING, "stop it first with 'lsub stop "+d.spec.Name+"'", "distro %s runs", d.spec.Name)
	}
	done := make(chan struct{})
	a.held[id] = done
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.held, id)
		a.mu.Unlock()
		close(done)
	}()
	return change()
}

// whileStill runs f while no process of the distro does: one that runs is
// frozen meanwhile.
func (a *Agent) whileStill(id string, f func() error) error {
	d := a.lookup(id)
	if d == nil {
		return f()
	}
	select {
	case <-d.ready:
	default:
		return f() // it is starting: nobody works in it yet
	}
	if d.err != nil {
		return f()
	}
	d.still.Lock() // the first to be done must not thaw it under the others
	defer d.still.Unlock()
	if err := d.cgroup.freeze(freezeTimeout); err != nil {
		// btrfs takes all of a subvolume at one moment anyway.
		a.log.Warn("a distro does not stand still for its snapshot", "distro", d.spec.Name, "err", err)
	}
	defer func() {
		if err := d.cgroup.thaw(); err != nil {
			a.log.Error("thaw a distro", "distro", d.spec.Name, "err", err)
		}
	}()
	return f()
}

// create makes a distro.
func (a *Agent) create(ctx context.Context, req *guestv1.CreateDistroRequest) error {
	for _, id := range []string{req.GetClone(), req.GetSnapshot().GetDistro(), req.GetSnapshot().GetId()} {
		if id != "" && !validID().MatchString(id) {
			return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no id", id)
		}
	}
	still := atOnce
	if id := req.GetClone(); id != "" {
		still = func(f func() error) error { return a.whileStill(id, f) }
	}
	return a.store.createDistro(req, still)
}

// deleteDistro deletes a distro, ending it where it runs: its files go, so
// nothing in it is worth waiting for.
func (a *Agent) deleteDistro(ctx context.Context, id string) error {
	for {
		if d := a.lookup(id); d != nil {
			d.stop(0)
		}
		err := a.whileStopped(ctx, id, func() error { return a.store.deleteDistro(id) })
		if guest.ErrorCode(err) != guestv1.ErrorCode_ERROR_CODE_RUNNING {
			return err // else somebody has just started it again
		}
	}
}

// checkSnapshot refuses what must not become part of a path, and a distro that
// does not exist.
func (a *Agent) checkSnapshot(snap *guestv1.Snapshot) error {
	for _, id := range []string{snap.GetDistro(), snap.GetId()} {
		if !validID().MatchString(id) {
			return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no id", id)
		}
	}
	if !exists(a.store.distroPath(snap.Distro)) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no files of distro %s", snap.Distro)
	}
	return nil
}

// createSnapshot keeps a distro's files as they are.
func (a *Agent) createSnapshot(snap *guestv1.Snapshot) error {
	if err := a.checkSnapshot(snap); err != nil {
		return err
	}
	return a.store.createSnapshot(snap, func(f func() error) error { return a.whileStill(snap.Distro, f) })
}

// restoreSnapshot puts a snapshot in the place of a distro's files.
func (a *Agent) restoreSnapshot(ctx context.Context, snap *guestv1.Snapshot) error {
	if err := a.checkSnapshot(snap); err != nil {
		return err
	}
	return a.whileStopped(ctx, snap.Distro, func() error { return a.store.restoreSnapshot(snap) })
}
