package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/btrfs"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/guestv1"
)

func (s *store) snapshotPath(distro, id string) string {
	return filepath.Join(s.dir, "snapshots", distro, id)
}

// snapshots lists the ids of a distro's snapshots.
func (s *store) snapshots(distro string) ([]string, error) {
	list, err := names(filepath.Join(s.dir, "snapshots", distro))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// createSnapshot keeps a distro's files under snap.
func (s *store) createSnapshot(snap *guestv1.Snapshot, still stillness) (err error) {
	to := s.snapshotPath(snap.Distro, snap.Id)
	if distrofile.Exists(to) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "", "snapshot %s exists", snap.Id)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return storeError(err)
	}
	tmp := s.staging()
	defer func() { s.discard(tmp, err) }()
	if err := still(func() error { return btrfs.Snapshot(s.distroPath(snap.Distro), tmp) }); err != nil {
		return storeError(err)
	}
	if err := s.publish(tmp, to); err != nil {
		return storeError(err)
	}
	if err := btrfs.SetReadOnly(to); err != nil {
		s.log.Warn("the snapshot stays writable", "snapshot", to, "err", err)
	}
	return nil
}

// restoreSnapshot puts the files of a snapshot in the place of the distro's,
// which nobody uses. A crash leaves the ones or the others.
func (s *store) restoreSnapshot(snap *guestv1.Snapshot) (err error) {
	if !distrofile.Exists(s.snapshotPath(snap.Distro, snap.Id)) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no snapshot %s", snap.Id)
	}
	tmp := s.staging()
	defer func() { s.discard(tmp, err) }()
	if err := btrfs.Snapshot(s.snapshotPath(snap.Distro, snap.Id), tmp); err != nil {
		return storeError(err)
	}
	if err := s.sync(); err != nil {
		return storeError(err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, s.distroPath(snap.Distro), unix.RENAME_EXCHANGE)
	if err != nil {
		return storeError(err)
	}
	if err := s.sync(); err != nil {
		return storeError(err)
	}
	if err := btrfs.Delete(tmp); err != nil { // what was there before
		s.log.Error("the files from before the restore stay until the next start", "err", err)
	}
	return nil
}

// source returns the subvolume that a distro's files are to come from. The
// caller has checked the ids.
func (s *store) source(req *guestv1.CreateDistroRequest) (string, error) {
	notFound := func(format string, args ...any) (string, error) {
		return "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", format, args...)
	}
	switch from := req.From.(type) {
	case *guestv1.CreateDistroRequest_Image:
		if !validImage().MatchString(from.Image) || !distrofile.Exists(s.imagePath(from.Image)) {
			return notFound("the VM has no image %q", from.Image)
		}
		return s.imagePath(from.Image), nil
	case *guestv1.CreateDistroRequest_Clone:
		if !distrofile.Exists(s.distroPath(from.Clone)) {
			return notFound("the VM has no files of distro %s", from.Clone)
		}
		return s.distroPath(from.Clone), nil
	case *guestv1.CreateDistroRequest_Snapshot:
		p := s.snapshotPath(from.Snapshot.GetDistro(), from.Snapshot.GetId())
		if !distrofile.Exists(p) {
			return notFound("the VM has no snapshot %s", from.Snapshot.GetId())
		}
		return p, nil
	}
	return "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the distro is to be made of nothing")
}
