package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/machine"
)

// reconcile makes the registry and the data disk agree. What the user has removed is
// deleted from the disk. Nothing else is: a registry may be older than the disk, or replace
// one that was lost. A distro that it does not know is kept aside for
// [machine.UnregisteredAge], and a snapshot that it does not know is registered.
func (s *supervisor) reconcile(ctx context.Context, vm hypervisor.VM, reg *machine.Registry) error {
	c := guest.NewClient(vm, s.Version)
	res, err := c.Info(ctx, connect.NewRequest(&guestv1.InfoRequest{Records: true}))
	if err != nil {
		return s.bootError(ctx, fmt.Errorf("ask the guest for its distros: %w", err))
	}
	info := res.Msg
	now := time.Now().UTC().Truncate(time.Second)
	todo := agree(reg, info, now)
	if todo.changed {
		err := s.m.Update(ctx, func(r *machine.Registry) error {
			todo = agree(r, info, now)
			*reg = *r
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, u := range todo.found {
		s.log.Warn("a distro on the data disk is not registered; it is kept aside", "id", u.ID, "name", u.Name())
		s.Reporter.Note(fmt.Sprintf("the data disk has a distro %s that is not registered; 'lsub register %s' takes it back", u.Name(), u.ID))
	}
	for _, id := range todo.distros {
		s.log.Info("deleting a distro that was removed", "id", id)
		if _, err := c.DeleteDistro(ctx, connect.NewRequest(&guestv1.DeleteDistroRequest{Id: id})); err != nil {
			s.log.Warn("a distro that was removed stays on the disk", "id", id, "err", err)
		}
	}
	for _, snap := range todo.snapshots {
		s.log.Info("deleting a snapshot that was removed", "distro", snap.Distro, "id", snap.Id)
		if _, err := c.DeleteSnapshot(ctx, connect.NewRequest(&guestv1.DeleteSnapshotRequest{Snapshot: snap})); err != nil {
			s.log.Warn("a snapshot that was removed stays on the disk", "distro", snap.Distro, "id", snap.Id, "err", err)
		}
	}
	for _, what := range todo.missing {
		s.log.Warn("what is registered is not on the data disk", "what", what)
	}
	for _, id := range info.Images {
		if reg.KeepsImage(id) {
			continue
		}
		s.log.Info("deleting an image that no distro is left of", "id", id)
		if _, err := c.DeleteImage(ctx, connect.NewRequest(&guestv1.DeleteImageRequest{Id: id})); err != nil {
			s.log.Warn("an unused image stays on the disk", "id", id, "err", err)
		}
	}
	s.trace.step("reconcile")
	return nil
}

// agreement is what follows from a comparison of the registry and the disk.
type agreement struct {
	changed   bool                   // the registry was
	found     []machine.Unregistered // distros that were not known before
	distros   []string               // to be deleted, by id
	snapshots []*guestv1.Snapshot    // to be deleted
	missing   []string               // what the disk does not have, for the log
}

// agree makes the registry agree with what is on the disk.
func agree(r *machine.Registry, disk *guestv1.InfoResponse, now time.Time) (a agreement) {
	for _, d := range slices.Clone(r.Distros) {
		if d.Ephemeral { // its command has ended with the last VM
			r.Remove(d.ID)
			a.changed = true
		}
	}
	there := map[string]bool{} // ids of distros and snapshots
	for _, d := range disk.Distros {
		if !machine.IsID(d.Id) {
			continue // the guest makes no sense
		}
		d.Snapshots = slices.DeleteFunc(slices.Clone(d.Snapshots), func(id string) bool { return !machine.IsID(id) })
		there[d.Id] = true
		for _, snap := range d.Snapshots {
			there[snap] = true
		}
		i := slices.IndexFunc(r.Distros, func(known machine.Distro) bool { return known.ID == d.Id })
		if i >= 0 {
			a.snapshotsOf(r, &r.Distros[i], d)
			continue
		}
		if _, removed := r.Removed[d.Id]; removed {
			a.distros = append(a.distros, d.Id)
			continue
		}
		i = slices.IndexFunc(r.Unregistered, func(u machine.Unregistered) bool { return u.ID == d.Id })
		switch {
		case i < 0:
			u := machine.Unregistered{ID: d.Id, Found: now, Distro: recorded(d.Record)}
			r.Unregistered = append(r.Unregistered, u)
			a.found, a.changed = append(a.found, u), true
		case now.Sub(r.Unregistered[i].Found) > machine.UnregisteredAge:
			r.SetRemoved(d.Id)
			a.distros, a.changed = append(a.distros, d.Id), true
		}
	}
	for id := range r.Removed {
		if !there[id] {
			delete(r.Removed, id)
			a.changed = true
		}
	}
	for _, id := range disk.Images {
		if strings.HasPrefix(id, "sha256:") && len(id) == len("sha256:")+64 && r.NoteImage(id, now) {
			a.changed = true
		}
	}
	n := len(r.Unregistered)
	r.Unregistered = slices.DeleteFunc(r.Unregistered, func(u machine.Unregistered) bool { return !there[u.ID] })
	a.changed = a.changed || len(r.Unregistered) != n
	for _, d := range r.Distros {
		if !there[d.ID] {
			a.missing = append(a.missing, "distro "+d.Name)
		}
		for _, snap := range d.Snapshots {
			if !there[snap.ID] {
				a.missing = append(a.missing, "snapshot "+snap.Name+" of "+d.Name)
			}
		}
	}
	return a
}

// snapshotsOf looks at the snapshots on the disk of a distro that is registered.
func (a *agreement) snapshotsOf(r *machine.Registry, d *machine.Distro, disk *guestv1.DistroState) {
	for _, id := range disk.Snapshots {
		if slices.ContainsFunc(d.Snapshots, func(snap machine.Snapshot) bool { return snap.ID == id }) {
			continue
		}
		if _, removed := r.Removed[id]; removed {
			a.snapshots = append(a.snapshots, &guestv1.Snapshot{Distro: d.ID, Id: id})
			continue
		}
		d.AdoptSnapshot(id)
		a.changed = true
	}
}

// maxRecord is the most bytes of a distro's record.
const maxRecord = 64 << 10

// recorded reads the record that the guest has kept of a distro, nil where it makes no
// sense.
func recorded(record []byte) *machine.Distro {
	var d machine.Distro
	if len(record) > maxRecord {
		return nil
	}
	if json.Unmarshal(record, &d) != nil || machine.CheckName("distro", d.Name) != nil {
		return nil
	}
	return &d
}
