package guesttest

import (
	"context"
	"runtime"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
)

var _ guestv1connect.GuestHandler = (*Guest)(nil)

// Info tells what the fake's disk holds.
func (g *Guest) Info(_ context.Context, req *connect.Request[guestv1.InfoRequest]) (*connect.Response[guestv1.InfoResponse], error) {
	d := g.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	res := &guestv1.InfoResponse{
		Arches:  []string{runtime.GOARCH},
		Version: g.Version, Kernel: "0.0-fake", Images: slices.Clone(d.data.Images),
		MemoryTotal: 1 << 30, MemoryAvailable: 1 << 29, DiskTotal: 1 << 40, DiskUsed: 1 << 20,
	}
	for id := range d.data.Distros {
		sessions, running := d.run[id]
		state := &guestv1.DistroState{Id: id, Running: running, Sessions: int32(sessions)}
		if running {
			state.Init, state.StartedAtNs = "tiny", 1e18
			if d.specs[id].GetIsolated() {
				state.Address = "192.168.127.9"
			}
			if sessions > 0 && req.Msg.Reasons {
				state.Reasons = []string{"a command runs"}
			}
		}
		state.Snapshots = slices.Clone(d.data.Snapshots[id])
		if user := d.data.DefaultUsers[id]; user != "" && req.Msg.Users {
			state.DefaultUser, state.DefaultUserFrom = user, "/etc/lsub.conf:2"
		}
		if req.Msg.Records {
			state.Record = d.data.Records[id]
		}
		res.Distros = append(res.Distros, state)
	}
	return connect.NewResponse(res), nil
}

// AdjustClock tells the time of a clock that is late until it is moved.
func (g *Guest) AdjustClock(_ context.Context, req *connect.Request[guestv1.AdjustClockRequest]) (*connect.Response[guestv1.AdjustClockResponse], error) {
	late := g.late.Add(-req.Msg.ByNs)
	if req.Msg.ByNs != 0 && g.Moved != nil {
		g.Moved(time.Duration(late))
	}
	return connect.NewResponse(&guestv1.AdjustClockResponse{UnixNs: time.Now().UnixNano() - late}), nil
}

// CreateDistro makes a distro of an image that was imported.
func (g *Guest) CreateDistro(_ context.Context, req *connect.Request[guestv1.CreateDistroRequest]) (*connect.Response[guestv1.CreateDistroResponse], error) {
	d, m := g.disk, req.Msg
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkFrom(m); err != nil {
		return nil, err
	}
	if _, ok := d.data.Distros[m.Distro.Id]; ok {
		return nil, guest.DistroExists(m.Distro.Id)
	}
	d.data.Distros[m.Distro.Id] = m.User.GetName()
	d.data.Records[m.Distro.Id] = m.Distro.Record
	for _, e := range m.Env {
		d.data.Env[m.Distro.Id] = append(d.data.Env[m.Distro.Id], string(e))
	}
	return connect.NewResponse(&guestv1.CreateDistroResponse{}), d.save()
}

// DeleteDistro deletes a distro.
func (g *Guest) DeleteDistro(_ context.Context, req *connect.Request[guestv1.DeleteDistroRequest]) (*connect.Response[guestv1.DeleteDistroResponse], error) {
	d := g.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.data.Distros, req.Msg.Id)
	delete(d.data.Snapshots, req.Msg.Id)
	delete(d.data.Env, req.Msg.Id)
	delete(d.data.Records, req.Msg.Id)
	delete(d.run, req.Msg.Id)
	d.tell.Broadcast()
	return connect.NewResponse(&guestv1.DeleteDistroResponse{}), d.save()
}

// SetDefaultUser writes what a distro's /etc/lsub.conf says. Root, nobody and
// the account that the distro was made with exist.
func (g *Guest) SetDefaultUser(_ context.Context, req *connect.Request[guestv1.SetDefaultUserRequest]) (*connect.Response[guestv1.SetDefaultUserResponse], error) {
	d, m := g.disk, req.Msg
	d.mu.Lock()
	defer d.mu.Unlock()
	made, ok := d.data.Distros[m.Id]
	if !ok {
		return nil, guest.NoDistro(m.Id)
	}
	uid, ok := map[string]uint32{"root": 0, made: 1000, "nobody": 65534}[m.User]
	if m.User == "1000" && made != "" {
		m.User, uid, ok = made, 1000, true
	}
	if !ok || m.User == "" {
		return nil, guest.NoUser(m.User)
	}
	if d.data.DefaultUsers == nil {
		d.data.DefaultUsers = map[string]string{}
	}
	d.data.DefaultUsers[m.Id] = m.User
	return connect.NewResponse(&guestv1.SetDefaultUserResponse{Name: m.User, Uid: uid}), d.save()
}

// StartDistro marks a distro as running.
func (g *Guest) StartDistro(_ context.Context, req *connect.Request[guestv1.StartDistroRequest]) (*connect.Response[guestv1.StartDistroResponse], error) {
	if err := g.disk.start(req.Msg.Distro); err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.StartDistroResponse{
		State: &guestv1.DistroState{Id: req.Msg.Distro.Id, Running: true, Init: "tiny", StartedAtNs: g.disk.started(req.Msg.Distro.Id)},
	}), nil
}

// ConfigureDistro remembers what a distro may use; the command "limits" shows it.
func (g *Guest) ConfigureDistro(_ context.Context, req *connect.Request[guestv1.ConfigureDistroRequest]) (*connect.Response[guestv1.ConfigureDistroResponse], error) {
	return connect.NewResponse(&guestv1.ConfigureDistroResponse{}), g.disk.configure(req.Msg.Distro)
}

// StopDistro marks a distro as stopped; its commands run on.
func (g *Guest) StopDistro(_ context.Context, req *connect.Request[guestv1.StopDistroRequest]) (*connect.Response[guestv1.StopDistroResponse], error) {
	d := g.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.run, req.Msg.Id)
	d.tell.Broadcast()
	return connect.NewResponse(&guestv1.StopDistroResponse{}), nil
}

// Poweroff ends the VM, unless it is a stubborn one.
func (g *Guest) Poweroff(context.Context, *connect.Request[guestv1.PoweroffRequest]) (*connect.Response[guestv1.PoweroffResponse], error) {
	if g.Stubborn {
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_UNSPECIFIED, "", "a process does not end")
	}
	g.off <- nil
	return connect.NewResponse(&guestv1.PoweroffResponse{}), nil
}
