package agent

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/btrfs"
	"github.com/lsub/lsub/guest/agent/distrofile"
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
	defer func() {
		if err := btrfs.Delete(tmp); err != nil {
			a.log.Error("an export's snapshot stays until the next start", "err", err)
		}
	}()
	w.SendMessage(guest.FrameStarted, &guestv1.Started{Bytes: estimate(ctx, tmp)})
	out := newPacket(func(frame []byte) error { return w.SendBuffer(guest.FrameStdout, frame) })
	note := func(line string) { w.Send(guest.FrameStderr, []byte(line+"\n")) }
	err = pack(ctx, tmp, out, note)
	if cerr := out.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return &guestv1.Exit{}, nil
}

// snapshotOf makes a snapshot of what req names, which is the caller's to delete.
func (a *Agent) snapshotOf(ctx context.Context, req *guestv1.Export) (tmp string, err error) {
	from, still := "", atOnce
	switch k := req.From.(type) {
	case *guestv1.Export_Distro:
		if err := checkDistro(&guestv1.Distro{Id: k.Distro}); err != nil {
			return "", err
		}
		from = a.store.distroPath(k.Distro)
		still = func(f func() error) error { return a.whileStill(ctx, k.Distro, f) }
	case *guestv1.Export_Snapshot:
		if err := a.checkSnapshot(k.Snapshot); err != nil {
			return "", err
		}
		from = a.store.snapshotPath(k.Snapshot.Distro, k.Snapshot.Id)
		still = func(f func() error) error {
			return a.whileHeld(ctx, k.Snapshot.Distro, func(*distro) error { return f() })
		}
	default:
		return "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the export is of nothing")
	}
	if !distrofile.Exists(from) {
		return "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no files of what is to be exported")
	}
	tmp = a.store.staging()
	err = still(func() error { return btrfs.Snapshot(from, tmp) })
	a.store.discard(tmp, err)
	return tmp, storeError(err)
}

// estimateTime is how long the first byte may wait for the estimate.
const estimateTime = 5 * time.Second

// estimate says about how long the archive of a tree will be; 0 where there are
// too many files to count in a moment.
func estimate(ctx context.Context, dir string) uint64 {
	ctx, cancel := context.WithTimeout(ctx, estimateTime)
	defer cancel()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	sum := int64(0)
	if !addSizes(ctx, fd, &sum) {
		return 0
	}
	return uint64(sum)
}

// addSizes adds up what is in a folder, and tells whether it got to its end. It
// closes fd.
func addSizes(ctx context.Context, fd int, sum *int64) bool {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	list, err := f.ReadDir(-1)
	if err != nil || ctx.Err() != nil {
		return false
	}
	for _, e := range list {
		*sum += 512
		switch e.Type() {
		case os.ModeDir:
			below, err := openIn(fd, e.Name(), unix.O_DIRECTORY)
			if err != nil || !addSizes(ctx, below, sum) {
				return false
			}
		case 0:
			var st unix.Stat_t
			if err := unix.Fstatat(fd, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return false
			}
			// A file of several names is in the archive once; holes are not in it.
			*sum += (min(st.Size, st.Blocks*512)/int64(max(st.Nlink, 1)) + 511) &^ 511
		}
	}
	return true
}
