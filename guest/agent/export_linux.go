package agent

import (
	"context"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/archive"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/agent/store"
	"github.com/lsub/lsub/guest/guestv1"
)

// export sends the files that req names as an archive. They come from a
// snapshot taken for it, so that a distro that runs, or is deleted, changes
// nothing; it is gone when export returns. When ctx is done, the host is gone.
func (a *Agent) export(ctx context.Context, req *guestv1.Export, w *guest.Writer) (*guestv1.Exit, error) {
	tmp, err := a.snapshotOf(ctx, req)
	if err != nil {
		return nil, err
	}
	defer a.store.DeleteTemp(tmp)
	w.SendMessage(guest.FrameStarted, &guestv1.Started{Bytes: archive.Estimate(ctx, tmp)})
	send := func(frame []byte) error { return w.SendBuffer(guest.FrameStdout, frame) }
	note := func(line string) { w.Send(guest.FrameStderr, []byte(line+"\n")) }
	if err := archive.Pack(ctx, tmp, send, note); err != nil {
		return nil, err
	}
	return &guestv1.Exit{}, nil
}

// snapshotOf makes a temporary snapshot of what req names. The caller deletes it.
func (a *Agent) snapshotOf(ctx context.Context, req *guestv1.Export) (tmp string, err error) {
	var from string
	var quiesce store.Quiesce
	switch k := req.From.(type) {
	case *guestv1.Export_Distro:
		if err := checkDistro(&guestv1.Distro{Id: k.Distro}); err != nil {
			return "", err
		}
		from = a.store.DistroPath(k.Distro)
		quiesce = func(f func() error) error { return a.whileFrozen(ctx, k.Distro, f) }
	case *guestv1.Export_Snapshot:
		if err := a.checkSnapshot(k.Snapshot); err != nil {
			return "", err
		}
		from = a.store.SnapshotPath(k.Snapshot.Distro, k.Snapshot.Id)
		quiesce = func(f func() error) error {
			return a.withFilesLocked(ctx, k.Snapshot.Distro, func(*distro) error { return f() })
		}
	default:
		return "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the export is of nothing")
	}
	if !distrofile.Exists(from) {
		return "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no files of what is to be exported")
	}
	return a.store.TempSnapshot(from, quiesce)
}
