package guesttest

import (
	"context"
	"os"
	"os/exec"
	"slices"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// checkFrom tells whether what a distro is to be made of is there; the disk's
// mutex is held.
func (d *disk) checkFrom(m *guestv1.CreateDistroRequest) error {
	switch from := m.From.(type) {
	case *guestv1.CreateDistroRequest_Image:
		if !slices.Contains(d.data.Images, from.Image) {
			return guest.NoImage(from.Image)
		}
	case *guestv1.CreateDistroRequest_Clone:
		if _, ok := d.data.Distros[from.Clone]; !ok {
			return guest.NoDistro(from.Clone)
		}
	case *guestv1.CreateDistroRequest_Snapshot:
		return d.checkSnapshot(from.Snapshot)
	default:
		return guest.MadeOfNothing()
	}
	return nil
}

func (d *disk) checkSnapshot(s *guestv1.Snapshot) error {
	if !slices.Contains(d.data.Snapshots[s.GetDistro()], s.GetId()) {
		return guest.NoSnapshot(s.GetId())
	}
	return nil
}

// DeleteImage forgets an image.
func (g *Guest) DeleteImage(_ context.Context, req *connect.Request[guestv1.DeleteImageRequest]) (*connect.Response[guestv1.DeleteImageResponse], error) {
	d := g.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.data.Images = slices.DeleteFunc(d.data.Images, func(id string) bool { return id == req.Msg.Id })
	return connect.NewResponse(&guestv1.DeleteImageResponse{}), d.save()
}

// copyFiles copies the files of a distro or snapshot, if it has any; see hostScript.
func (d *disk) copyFiles(from, to string) error {
	if d.path == "" {
		return nil
	}
	if _, err := os.Stat(filesOf(d.path, from)); err != nil {
		return nil
	}
	if err := os.RemoveAll(filesOf(d.path, to)); err != nil {
		return err
	}
	return exec.Command("cp", "-a", filesOf(d.path, from), filesOf(d.path, to)).Run()
}

// CreateSnapshot notes a snapshot, with the files that scripts have made. Where LSUBTEST_SNAPSHOT
// names a FIFO, it tells the test by it, and never comes to an end.
func (g *Guest) CreateSnapshot(ctx context.Context, req *connect.Request[guestv1.CreateSnapshotRequest]) (*connect.Response[guestv1.CreateSnapshotResponse], error) {
	if fifo := os.Getenv("LSUBTEST_SNAPSHOT"); fifo != "" {
		if err := os.WriteFile(fifo, nil, 0); err != nil {
			return nil, err
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	d, s := g.disk, req.Msg.Snapshot
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.data.Distros[s.Distro]; !ok {
		return nil, guest.NoDistro(s.Distro)
	}
	if err := d.copyFiles(s.Distro, s.Id); err != nil {
		return nil, err
	}
	d.data.Snapshots[s.Distro] = append(d.data.Snapshots[s.Distro], s.Id)
	return connect.NewResponse(&guestv1.CreateSnapshotResponse{}), d.save()
}

// RestoreSnapshot checks what a real guest would, and stops the distro.
func (g *Guest) RestoreSnapshot(_ context.Context, req *connect.Request[guestv1.RestoreSnapshotRequest]) (*connect.Response[guestv1.RestoreSnapshotResponse], error) {
	d, s := g.disk, req.Msg.Snapshot
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkSnapshot(s); err != nil {
		return nil, err
	}
	if err := d.copyFiles(s.Id, s.Distro); err != nil {
		return nil, err
	}
	delete(d.run, s.Distro)
	d.tell.Broadcast()
	return connect.NewResponse(&guestv1.RestoreSnapshotResponse{}), nil
}

// DeleteSnapshot forgets a snapshot.
func (g *Guest) DeleteSnapshot(_ context.Context, req *connect.Request[guestv1.DeleteSnapshotRequest]) (*connect.Response[guestv1.DeleteSnapshotResponse], error) {
	d, s := g.disk, req.Msg.Snapshot
	d.mu.Lock()
	defer d.mu.Unlock()
	d.data.Snapshots[s.Distro] = slices.DeleteFunc(d.data.Snapshots[s.Distro], func(id string) bool { return id == s.Id })
	return connect.NewResponse(&guestv1.DeleteSnapshotResponse{}), d.save()
}

// Watch tells which distros run, at once and at every change.
func (g *Guest) Watch(ctx context.Context, _ *connect.Request[guestv1.WatchRequest], stream *connect.ServerStream[guestv1.WatchResponse]) error {
	d := g.disk
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.tell.Broadcast()
	})
	defer stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for ctx.Err() == nil {
		var res guestv1.WatchResponse
		for id, sessions := range d.run {
			res.Distros = append(res.Distros, &guestv1.DistroState{Id: id, Running: true, Sessions: int32(sessions)})
		}
		d.mu.Unlock()
		err := stream.Send(&res)
		d.mu.Lock()
		if err != nil {
			return err
		}
		d.tell.Wait()
	}
	return ctx.Err()
}
