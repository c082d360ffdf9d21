package distro

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// CreateSnapshot keeps a distro's files as they are, also while it runs. name may be "",
// which stands for the time. When it fails, there is no snapshot.
func (s *Service) CreateSnapshot(ctx context.Context, d *machine.Distro, name string) (_ *machine.Snapshot, err error) {
	defer s.explain(ctx, &err)
	if name == "" {
		name = time.Now().Format("2006-01-02_15.04.05")
	}
	snap := machine.Snapshot{ID: machine.NewID(name), Name: name, Created: now()}
	copied := *d // whether the name is free, before anything is done
	copied.Snapshots = slices.Clone(d.Snapshots)
	if err := copied.AddSnapshot(snap); err != nil {
		return nil, err
	}
	if err := s.machine.Start(ctx); err != nil {
		return nil, err
	}
	defer s.step("taking a snapshot of " + d.Name)()
	call, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	ref := &guestv1.Snapshot{Distro: d.ID, Id: snap.ID}
	if _, err := s.client().CreateSnapshot(call, connect.NewRequest(&guestv1.CreateSnapshotRequest{Snapshot: ref})); err != nil {
		return nil, err
	}
	err = s.change(ctx, d.ID, func(d *machine.Distro) error { return d.AddSnapshot(snap) })
	if err != nil {
		// If this fails too, the next start of the VM deletes what is left.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		s.machine.Update(clean, func(r *machine.Registry) error { r.SetRemoved(snap.ID); return nil })
		s.running().DeleteSnapshot(clean, connect.NewRequest(&guestv1.DeleteSnapshotRequest{Snapshot: ref}))
		return nil, err
	}
	return &snap, nil
}

// RestoreSnapshot shuts a distro down and has its files be what they were in a snapshot.
// What has changed since is lost. When it fails, the files are those before or those of
// the snapshot.
func (s *Service) RestoreSnapshot(ctx context.Context, d *machine.Distro, name string) (err error) {
	defer s.explain(ctx, &err)
	snap, err := d.FindSnapshot(name)
	if err != nil {
		return err
	}
	if err := s.machine.Start(ctx); err != nil {
		return err
	}
	// The snapshot may be older than the certificates of the profile. This is noted
	// before, in case we are cut off, and after, because who starts the distro meanwhile
	// adds the certificates to the files that go.
	noCertificates := func(d *machine.Distro) error {
		d.CA = ""
		if d.Up != nil {
			d.Up.Sum = "" // nor may what the profile's file says be in it
		}
		return nil
	}
	if err := s.change(ctx, d.ID, noCertificates); err != nil {
		return err
	}
	defer s.step("restoring " + d.Name)()
	call, cancel := context.WithTimeout(ctx, distroTimeout+StopTimeout)
	defer cancel()
	res, err := s.client().RestoreSnapshot(call, connect.NewRequest(&guestv1.RestoreSnapshotRequest{
		Snapshot: &guestv1.Snapshot{Distro: d.ID, Id: snap.ID}, TimeoutNs: int64(StopTimeout),
	}))
	if err != nil {
		return err
	}
	s.warnKilled(d.Name, StopTimeout, res.Msg.Killed)
	return s.change(ctx, d.ID, noCertificates)
}

// DeleteSnapshot deletes a snapshot of a distro. Where the VM is off, its files go when
// the VM starts next.
func (s *Service) DeleteSnapshot(ctx context.Context, d *machine.Distro, name string) (err error) {
	defer s.explain(ctx, &err)
	snap, err := d.FindSnapshot(name)
	if err != nil {
		return err
	}
	id := snap.ID
	err = s.machine.Update(ctx, func(r *machine.Registry) error {
		err := r.Change(d.ID, func(d *machine.Distro) error { return d.RemoveSnapshot(id) })
		if err == nil {
			r.SetRemoved(id)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer s.step("deleting " + name)()
	call, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	_, err = s.running().DeleteSnapshot(call, connect.NewRequest(&guestv1.DeleteSnapshotRequest{
		Snapshot: &guestv1.Snapshot{Distro: d.ID, Id: id},
	}))
	return unlessOff(err)
}
