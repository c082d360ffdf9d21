package agent

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/agent/procfs"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
)

// control serves the Guest service.
type control struct{ a *Agent }

var _ guestv1connect.GuestHandler = control{}

var validID = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,79}$`)
})

// checkDistro refuses what must not become part of a path, and limits that
// cannot hold.
func checkDistro(d *guestv1.Distro) error {
	if d == nil || !validID().MatchString(d.Id) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no distro id", d.GetId())
	}
	for _, e := range d.Env {
		if i := strings.IndexByte(e, '='); i < 1 || strings.ContainsRune(e, 0) {
			return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no NAME=value", e)
		}
	}
	return cgroup.CheckLimits(d.Limits)
}

func (c control) Info(ctx context.Context, req *connect.Request[guestv1.InfoRequest]) (*connect.Response[guestv1.InfoResponse], error) {
	a := c.a
	res := &guestv1.InfoResponse{Version: a.cfg.Version, Kernel: a.cfg.Kernel, Boot: a.cfg.Boot}
	var err error
	if res.Images, err = a.store.Images(); err != nil {
		return nil, err
	}
	ids, err := a.store.Distros()
	if err != nil {
		return nil, err
	}
	overruled := overruled(a.sysctlMakers())
	for _, id := range ids {
		st := &guestv1.DistroState{Id: id}
		if d := a.lookup(id); d != nil {
			if st = d.state(); req.Msg.Reasons && st.Running && !st.Stopping {
				st.Reasons = d.reasons()
			}
		}
		st.Overruled = overruled[id]
		if st.Snapshots, err = a.store.Snapshots(id); err != nil {
			return nil, err
		}
		if req.Msg.Users {
			own := a.store.DefaultUser(id)
			st.DefaultUser, st.DefaultUserFrom = own.Name, own.From
		}
		if req.Msg.Records {
			st.Record = a.store.Record(id)
		}
		res.Distros = append(res.Distros, st)
	}
	res.Arches = runnable()
	res.MemoryTotal, res.MemoryAvailable = procfs.Memory()
	var fs unix.Statfs_t
	if err := unix.Statfs(a.cfg.Data, &fs); err == nil {
		res.DiskTotal = fs.Blocks * uint64(fs.Bsize)
		res.DiskUsed = (fs.Blocks - fs.Bfree) * uint64(fs.Bsize)
	}
	return connect.NewResponse(res), nil
}

func (c control) CreateDistro(ctx context.Context, req *connect.Request[guestv1.CreateDistroRequest]) (*connect.Response[guestv1.CreateDistroResponse], error) {
	if err := checkDistro(req.Msg.Distro); err != nil {
		return nil, err
	}
	if err := c.a.create(ctx, req.Msg); err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.CreateDistroResponse{}), nil
}

func (c control) DeleteDistro(ctx context.Context, req *connect.Request[guestv1.DeleteDistroRequest]) (*connect.Response[guestv1.DeleteDistroResponse], error) {
	if err := checkDistro(&guestv1.Distro{Id: req.Msg.Id}); err != nil {
		return nil, err
	}
	if err := c.a.deleteDistro(ctx, req.Msg.Id); err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.DeleteDistroResponse{}), nil
}

func (c control) SetDefaultUser(ctx context.Context, req *connect.Request[guestv1.SetDefaultUserRequest]) (*connect.Response[guestv1.SetDefaultUserResponse], error) {
	if err := checkDistro(&guestv1.Distro{Id: req.Msg.Id}); err != nil {
		return nil, err
	}
	who, err := c.a.store.SetDefaultUser(req.Msg.Id, req.Msg.User)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.SetDefaultUserResponse{Name: who.Name, Uid: who.UID}), nil
}

func (c control) DeleteImage(ctx context.Context, req *connect.Request[guestv1.DeleteImageRequest]) (*connect.Response[guestv1.DeleteImageResponse], error) {
	if err := c.a.store.DeleteImage(req.Msg.Id); err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.DeleteImageResponse{}), nil
}

func (c control) ConfigureDistro(ctx context.Context, req *connect.Request[guestv1.ConfigureDistroRequest]) (*connect.Response[guestv1.ConfigureDistroResponse], error) {
	if err := checkDistro(req.Msg.Distro); err != nil {
		return nil, err
	}
	if d := c.a.lookup(req.Msg.Distro.Id); d != nil {
		if err := d.configure(ctx, req.Msg.Distro); err != nil {
			return nil, err
		}
	}
	c.keepRecord(req.Msg.Distro)
	return connect.NewResponse(&guestv1.ConfigureDistroResponse{}), nil
}

// keepRecord keeps what the host has registered of a distro. Without it the distro is of
// use all the same.
func (c control) keepRecord(d *guestv1.Distro) {
	if !c.a.store.HasDistro(d.Id) {
		return
	}
	if err := c.a.store.SetRecord(d.Id, d.Record); err != nil {
		c.a.log.Warn("a distro's record is not kept", "distro", d.Name, "err", err)
	}
}

func (c control) CreateSnapshot(ctx context.Context, req *connect.Request[guestv1.CreateSnapshotRequest]) (*connect.Response[guestv1.CreateSnapshotResponse], error) {
	if err := c.a.createSnapshot(ctx, req.Msg.Snapshot); err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.CreateSnapshotResponse{}), nil
}

func (c control) RestoreSnapshot(ctx context.Context, req *connect.Request[guestv1.RestoreSnapshotRequest]) (*connect.Response[guestv1.RestoreSnapshotResponse], error) {
	killed, err := c.a.restoreSnapshot(ctx, req.Msg.Snapshot, grace(req.Msg.TimeoutNs))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.RestoreSnapshotResponse{Killed: killed}), nil
}

func (c control) DeleteSnapshot(ctx context.Context, req *connect.Request[guestv1.DeleteSnapshotRequest]) (*connect.Response[guestv1.DeleteSnapshotResponse], error) {
	if err := c.a.deleteSnapshot(ctx, req.Msg.Snapshot); err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.DeleteSnapshotResponse{}), nil
}

// Watch tells which distros run, at once and at every change, until the host
// hangs up or the VM powers off.
func (c control) Watch(ctx context.Context, _ *connect.Request[guestv1.WatchRequest], stream *connect.ServerStream[guestv1.WatchResponse]) error {
	a := c.a
	for {
		a.mu.Lock()
		changed := a.changed
		var res guestv1.WatchResponse
		for _, d := range a.distros {
			res.Distros = append(res.Distros, d.state())
		}
		a.mu.Unlock()
		if err := stream.Send(&res); err != nil {
			return err
		}
		if err := await(ctx, changed); err != nil {
			return err
		}
	}
}

func (c control) StartDistro(ctx context.Context, req *connect.Request[guestv1.StartDistroRequest]) (*connect.Response[guestv1.StartDistroResponse], error) {
	d, err := c.a.start(ctx, req.Msg.Distro)
	if err != nil {
		return nil, err
	}
	c.keepRecord(req.Msg.Distro)
	return connect.NewResponse(&guestv1.StartDistroResponse{State: d.state(), Warnings: d.takeWarnings()}), nil
}

func (c control) StopDistro(ctx context.Context, req *connect.Request[guestv1.StopDistroRequest]) (*connect.Response[guestv1.StopDistroResponse], error) {
	if err := checkDistro(&guestv1.Distro{Id: req.Msg.Id}); err != nil {
		return nil, err
	}
	res := &guestv1.StopDistroResponse{}
	if d := c.a.lookup(req.Msg.Id); d != nil {
		res.Killed = d.stop(grace(req.Msg.TimeoutNs))
	}
	return connect.NewResponse(res), nil
}

// grace is how long a distro that stops has until it is killed.
func grace(timeoutNs int64) time.Duration {
	if timeoutNs <= 0 {
		return stopGrace
	}
	return time.Duration(timeoutNs)
}

func (c control) Poweroff(ctx context.Context, _ *connect.Request[guestv1.PoweroffRequest]) (*connect.Response[guestv1.PoweroffResponse], error) {
	a := c.a
	a.log.Info("power off")
	a.stopAll(stopGrace)
	a.store.Close()
	go func() {
		// Shutdown waits until this answer is on its way.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		a.server.Shutdown(ctx)
		a.cfg.PowerOff()
	}()
	return connect.NewResponse(&guestv1.PoweroffResponse{}), nil
}
