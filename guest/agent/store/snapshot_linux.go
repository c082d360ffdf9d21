package store

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

// SnapshotPath returns the directory of a snapshot's files, whether it exists or not.
func (s *Store) SnapshotPath(distro, id string) string {
	return filepath.Join(s.dir, "snapshots", distro, id)
}

// Snapshots lists the ids of a distro's snapshots.
func (s *Store) Snapshots(distro string) ([]string, error) {
	list, err := names(filepath.Join(s.dir, "snapshots", distro))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// CreateSnapshot makes the snapshot snap of a distro's files.
func (s *Store) CreateSnapshot(snap *guestv1.Snapshot, quiesce Quiesce) (err error) {
	to := s.SnapshotPath(snap.Distro, snap.Id)
	if distrofile.Exists(to) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "", "snapshot %s exists", snap.Id)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return withCode(err)
	}
	tmp := s.staging()
	defer func() { s.discard(tmp, err) }()
	if err := quiesce(func() error { return btrfs.Snapshot(s.DistroPath(snap.Distro), tmp) }); err != nil {
		return withCode(err)
	}
	if err := s.publish(tmp, to); err != nil {
		return withCode(err)
	}
	if err := btrfs.SetReadOnly(to); err != nil {
		s.log.Warn("the snapshot stays writable", "snapshot", to, "err", err)
	}
	return nil
}

// DeleteSnapshot deletes a snapshot. It is no error if there is none.
func (s *Store) DeleteSnapshot(snap *guestv1.Snapshot) error {
	return s.delete(s.SnapshotPath(snap.Distro, snap.Id))
}

// TempSnapshot makes a snapshot of the files in dir that lasts until DeleteTemp, or until
// the store opens again.
func (s *Store) TempSnapshot(dir string, quiesce Quiesce) (tmp string, err error) {
	tmp = s.staging()
	err = quiesce(func() error { return btrfs.Snapshot(dir, tmp) })
	s.discard(tmp, err)
	return tmp, withCode(err)
}

// DeleteTemp deletes what TempSnapshot made. It logs an error.
func (s *Store) DeleteTemp(tmp string) {
	if err := btrfs.Delete(tmp); err != nil {
		s.log.Error("a temporary snapshot stays until the next start", "err", err)
	}
}

// RestoreSnapshot puts the files of a snapshot in the place of the distro's, which nobody
// uses meanwhile. After a crash the distro has the old files or the new ones, never a mix.
func (s *Store) RestoreSnapshot(snap *guestv1.Snapshot) (err error) {
	if !distrofile.Exists(s.SnapshotPath(snap.Distro, snap.Id)) {
		return guest.NoSnapshot(snap.Id)
	}
	tmp := s.staging()
	defer func() { s.discard(tmp, err) }()
	if err := btrfs.Snapshot(s.SnapshotPath(snap.Distro, snap.Id), tmp); err != nil {
		return withCode(err)
	}
	if err := s.sync(); err != nil {
		return withCode(err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, s.DistroPath(snap.Distro), unix.RENAME_EXCHANGE)
	if err != nil {
		return withCode(err)
	}
	if err := s.sync(); err != nil {
		return withCode(err)
	}
	if err := btrfs.Delete(tmp); err != nil { // what was there before
		s.log.Error("the files from before the restore stay until the next start", "err", err)
	}
	return nil
}

// source returns the subvolume that a distro's files are to come from. The
// caller has checked the ids.
func (s *Store) source(req *guestv1.CreateDistroRequest) (string, error) {
	switch from := req.From.(type) {
	case *guestv1.CreateDistroRequest_Image:
		if !validImage().MatchString(from.Image) || !distrofile.Exists(s.imagePath(from.Image)) {
			return "", guest.NoImage(from.Image)
		}
		return s.imagePath(from.Image), nil
	case *guestv1.CreateDistroRequest_Clone:
		if !distrofile.Exists(s.DistroPath(from.Clone)) {
			return "", guest.NoDistro(from.Clone)
		}
		return s.DistroPath(from.Clone), nil
	case *guestv1.CreateDistroRequest_Snapshot:
		p := s.SnapshotPath(from.Snapshot.GetDistro(), from.Snapshot.GetId())
		if !distrofile.Exists(p) {
			return "", guest.NoSnapshot(from.Snapshot.GetId())
		}
		return p, nil
	}
	return "", guest.MadeOfNothing()
}
