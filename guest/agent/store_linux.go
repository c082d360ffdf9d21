package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/agent/archive"
	"github.com/lsub/lsub/guest/agent/btrfs"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/agent/procfs"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/rootfs"
)

// store keeps images and distros as subvolumes of the data disk:
//
//	images/sha256-HEX    read-only
//	distros/ID
//	snapshots/DISTRO/ID  read-only
//	staging/…            what is not whole yet; emptied when the store opens
//
// What stands elsewhere than in staging is whole: it was made in staging,
// flushed, and renamed by [store.publish].
type store struct {
	dir string
	log *slog.Logger

	mu        sync.Mutex
	importing map[string]*sync.Mutex // by image id: two imports of one image follow each other
	serial    int
}

var validImage = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
})

func openStore(dir string, log *slog.Logger) (*store, error) {
	s := &store{dir: dir, log: log, importing: map[string]*sync.Mutex{}}
	for _, sub := range []string{"images", "distros", "snapshots", "staging"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("data disk: %w", err)
		}
	}
	left, err := names(filepath.Join(dir, "staging"))
	if err != nil {
		return nil, err
	}
	for _, name := range left {
		log.Warn("remove what was left half-made", "name", name)
		if err := btrfs.Delete(filepath.Join(dir, "staging", name)); err != nil {
			log.Error("what was left half-made stays", "name", name, "err", err) // no reason to keep the distros from starting
		}
	}
	return s, nil
}

// close flushes everything to the disk.
func (s *store) close() {
	if err := s.sync(); err != nil {
		s.log.Error("flush the data disk", "err", err)
	}
}

func (s *store) sync() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func (s *store) imagePath(id string) string {
	return filepath.Join(s.dir, "images", "sha256-"+id[len("sha256:"):])
}

func (s *store) distroPath(id string) string { return filepath.Join(s.dir, "distros", id) }

// staging returns a path in staging that nothing stands at.
func (s *store) staging() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.serial++
		if p := filepath.Join(s.dir, "staging", fmt.Sprint(s.serial)); !distrofile.Exists(p) {
			return p
		}
	}
}

func (s *store) images() ([]string, error) {
	list, err := names(filepath.Join(s.dir, "images"))
	for i, n := range list {
		list[i] = "sha256:" + n[len("sha256-"):]
	}
	return list, err
}

func (s *store) distros() ([]string, error) { return names(filepath.Join(s.dir, "distros")) }

func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Name()
	}
	return list, nil
}

// importImage unpacks the archive that in holds into an image, unless the
// image is there. An archive cut short leaves nothing behind.
func (s *store) importImage(id string, in io.Reader) (err error) {
	if !validImage().MatchString(id) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no image id", id)
	}
	s.mu.Lock()
	one := s.importing[id]
	if one == nil {
		one = new(sync.Mutex)
		s.importing[id] = one
	}
	s.mu.Unlock()
	one.Lock()
	defer one.Unlock()

	if distrofile.Exists(s.imagePath(id)) {
		return nil
	}
	tmp := s.staging()
	if err := btrfs.Create(tmp); err != nil {
		return storeError(err)
	}
	defer func() { s.discard(tmp, err) }()
	var st rootfs.State
	begin := procfs.LoadNow()
	if err := archive.Unpack(tmp, in, &st); err != nil {
		return storeError(err)
	}
	unpacked := procfs.LoadNow()
	if err := s.publish(tmp, s.imagePath(id)); err != nil {
		return storeError(err)
	}
	s.log.Info("image imported", "image", id, "entries", st.Entries, "bytes", st.Bytes,
		"unpack", unpacked.Since(begin), "flush", procfs.LoadNow().Since(unpacked))
	// Last, because what is read-only cannot be renamed.
	if err := btrfs.SetReadOnly(s.imagePath(id)); err != nil {
		s.log.Warn("the image stays writable", "image", id, "err", err)
	}
	return nil
}

// deleteImage deletes an image. One that is not there is deleted.
func (s *store) deleteImage(id string) error {
	if !validImage().MatchString(id) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no image id", id)
	}
	return s.delete(s.imagePath(id))
}

// stillness calls f while nothing writes to the files that f takes a snapshot of.
type stillness func(f func() error) error

// atOnce is for files that nothing writes to.
func atOnce(f func() error) error { return f() }

// createDistro makes a distro of what req names.
func (s *store) createDistro(req *guestv1.CreateDistroRequest, still stillness) (err error) {
	from, err := s.source(req)
	if err != nil {
		return err
	}
	to := s.distroPath(req.Distro.Id)
	if distrofile.Exists(to) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "", "distro %s exists", req.Distro.Id)
	}
	tmp := s.staging()
	defer func() { s.discard(tmp, err) }()
	if err := still(func() error { return btrfs.Snapshot(from, tmp) }); err != nil {
		return storeError(err)
	}
	if err := account.Prepare(tmp, req); err != nil {
		return storeError(err)
	}
	return storeError(s.publish(tmp, to))
}

// deleteDistro deletes a distro's files and its snapshots. One that is not
// there is deleted.
func (s *store) deleteDistro(id string) error {
	if err := s.delete(s.distroPath(id)); err != nil {
		return err
	}
	snapshots, err := s.snapshots(id)
	if err != nil {
		return err
	}
	for _, snap := range snapshots {
		if err := s.delete(s.snapshotPath(id, snap)); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(s.dir, "snapshots", id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// publish moves a subvolume that is made to where it belongs, in a way that a
// crash leaves it there whole or not at all. When it returns, it is on the disk.
func (s *store) publish(tmp, to string) error {
	if err := s.sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	return s.sync()
}

// discard deletes what stands half-made in staging, where err says why.
func (s *store) discard(tmp string, err error) {
	if err == nil || !distrofile.Exists(tmp) {
		return
	}
	if err := btrfs.Delete(tmp); err != nil {
		s.log.Error("clean up after a failure", "err", err)
	}
}

func (s *store) delete(path string) error {
	if !distrofile.Exists(path) {
		return nil
	}
	return storeError(btrfs.Delete(path))
}

// storeError gives err the code that it has in the protocol.
func storeError(err error) error {
	var (
		entry    *rootfs.EntryError
		limit    *rootfs.LimitError
		unusable *rootfs.UnusableError
		coded    *guest.Error
	)
	switch {
	case err == nil, errors.As(err, &coded):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SPACE, "delete files in distros, or distros with 'lsub unregister'",
			"the data disk is full: %v", err)
	case errors.As(err, &entry), errors.As(err, &limit), errors.As(err, &unusable), errors.Is(err, archive.ErrBad):
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_BAD_IMAGE, "", "%v", err)
	}
	return err
}
