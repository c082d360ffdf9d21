package agent

import (
	"context"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/store"
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

// notifyChange tells those who watch that a distro has come or gone. The caller holds a.mu.
func (a *Agent) notifyChange() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// lockFilesFree locks a.mu at a moment when nobody has locked the distro's files.
func (a *Agent) lockFilesFree(ctx context.Context, id string) error {
	for {
		a.mu.Lock()
		held := a.fileLocks[id]
		if held == nil {
			return nil
		}
		a.mu.Unlock()
		if err := await(ctx, held); err != nil {
			return err
		}
	}
}

// withFilesLocked runs f, which changes or copies the files of a distro, with the distro
// if it runs. Meanwhile nobody else does so, and the distro does not start.
func (a *Agent) withFilesLocked(ctx context.Context, id string, f func(d *distro) error) error {
	if err := a.lockFilesFree(ctx, id); err != nil {
		return err
	}
	d := a.distros[id]
	done := make(chan struct{})
	a.fileLocks[id] = done
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.fileLocks, id)
		a.mu.Unlock()
		close(done)
	}()
	return f(d)
}

// whileStopped stops the distro where it runs, as stop does, and runs change
// before it can start again.
func (a *Agent) whileStopped(ctx context.Context, id string, grace time.Duration, change func() error) (killed bool, err error) {
	err = a.withFilesLocked(ctx, id, func(d *distro) error {
		if d != nil {
			killed = d.stop(grace)
			select {
			case <-d.gone:
			default:
				return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_UNSPECIFIED, "'lsub shutdown' ends the VM, and it", "the processes of the distro do not end")
			}
		}
		return change()
	})
	return killed, err
}

// whileFrozen runs f with the distro's files locked, and freezes the distro meanwhile if
// it runs.
func (a *Agent) whileFrozen(ctx context.Context, id string, f func() error) error {
	return a.withFilesLocked(ctx, id, func(d *distro) error {
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
		if err := d.group.Freeze(freezeTimeout); err != nil {
			// btrfs takes all of a subvolume at one moment anyway.
			a.log.Warn("a distro does not stand still for its snapshot", "distro", d.spec.Name, "err", err)
		}
		defer func() {
			if err := d.group.Thaw(); err != nil {
				a.log.Error("thaw a distro", "distro", d.spec.Name, "err", err)
			}
		}()
		return f()
	})
}

// create makes a distro.
func (a *Agent) create(ctx context.Context, req *guestv1.CreateDistroRequest) error {
	for _, id := range []string{req.GetClone(), req.GetSnapshot().GetDistro(), req.GetSnapshot().GetId()} {
		if id != "" && !validID().MatchString(id) {
			return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no id", id)
		}
	}
	var quiesce store.Quiesce = store.NoQuiesce
	if id := req.GetClone(); id != "" {
		quiesce = func(f func() error) error { return a.whileFrozen(ctx, id, f) }
	} else if id := req.GetSnapshot().GetDistro(); id != "" {
		quiesce = func(f func() error) error { return a.withFilesLocked(ctx, id, func(*distro) error { return f() }) }
	}
	return a.store.CreateDistro(req, quiesce)
}

// deleteDistro deletes a distro, ending it where it runs: its files go, so
// nothing in it is worth waiting for.
func (a *Agent) deleteDistro(ctx context.Context, id string) error {
	_, err := a.whileStopped(ctx, id, 0, func() error { return a.store.DeleteDistro(id) })
	return err
}

// checkSnapshot refuses what must not become part of a path, and a distro that
// does not exist.
func (a *Agent) checkSnapshot(snap *guestv1.Snapshot) error {
	for _, id := range []string{snap.GetDistro(), snap.GetId()} {
		if !validID().MatchString(id) {
			return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no id", id)
		}
	}
	if !a.store.HasDistro(snap.Distro) {
		return guest.NoDistro(snap.Distro)
	}
	return nil
}

// createSnapshot keeps a distro's files as they are.
func (a *Agent) createSnapshot(ctx context.Context, snap *guestv1.Snapshot) error {
	if err := a.checkSnapshot(snap); err != nil {
		return err
	}
	return a.store.CreateSnapshot(snap, func(f func() error) error { return a.whileFrozen(ctx, snap.Distro, f) })
}

// deleteSnapshot deletes a snapshot, when nobody copies it.
func (a *Agent) deleteSnapshot(ctx context.Context, snap *guestv1.Snapshot) error {
	if err := a.checkSnapshot(snap); err != nil {
		return err
	}
	return a.withFilesLocked(ctx, snap.Distro, func(*distro) error { return a.store.DeleteSnapshot(snap) })
}

// restoreSnapshot puts a snapshot in the place of a distro's files.
func (a *Agent) restoreSnapshot(ctx context.Context, snap *guestv1.Snapshot, grace time.Duration) (killed bool, err error) {
	if err := a.checkSnapshot(snap); err != nil {
		return false, err
	}
	return a.whileStopped(ctx, snap.Distro, grace, func() error {
		if err := a.checkSnapshot(snap); err != nil { // it may have gone meanwhile
			return err
		}
		return a.store.RestoreSnapshot(snap)
	})
}
