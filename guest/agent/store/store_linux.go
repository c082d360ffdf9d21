package store

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

// Store is the store on a data disk. It is safe for concurrent use as far as nobody
// changes the same distro twice at the same time: that is the caller's to see to.
type Store struct {
	dir string
	log *slog.Logger

	mu        sync.Mutex
	importing map[string]*sync.Mutex // by image id: two imports of one image follow each other
	serial    int
}

var validImage = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
})

// Open opens the store in dir, a directory of a btrfs, and removes what an operation that
// was cut off has left in staging. The caller closes the store.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log, importing: map[string]*sync.Mutex{}}
	for _, sub := range []string{"images", "distros", "snapshots", "records", "staging"} {
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

// Close flushes the disk. It logs an error: the VM ends anyway.
func (s *Store) Close() {
	if err := s.sync(); err != nil {
		s.log.Error("flush the data disk", "err", err)
	}
}

func (s *Store) sync() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func (s *Store) imagePath(id string) string {
	return filepath.Join(s.dir, "images", "sha256-"+id[len("sha256:"):])
}

// DistroPath returns the directory of a distro's files, whether it exists or not.
func (s *Store) DistroPath(id string) string { return filepath.Join(s.dir, "distros", id) }

// staging returns a path in staging that nothing stands at.
func (s *Store) staging() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.serial++
		if p := filepath.Join(s.dir, "staging", fmt.Sprint(s.serial)); !distrofile.Exists(p) {
			return p
		}
	}
}

// Images lists the ids of the images.
func (s *Store) Images() ([]string, error) {
	list, err := names(filepath.Join(s.dir, "images"))
	for i, n := range list {
		list[i] = "sha256:" + n[len("sha256-"):]
	}
	return list, err
}

// Distros lists the ids of the distros.
func (s *Store) Distros() ([]string, error) { return names(filepath.Join(s.dir, "distros")) }

// HasDistro tells whether there are files of a distro.
func (s *Store) HasDistro(id string) bool { return distrofile.Exists(s.DistroPath(id)) }

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

// ImportImage makes an image of the archive that it reads from in, unless there is one of
// that id. Of an archive that is cut short nothing stays.
func (s *Store) ImportImage(id string, in io.Reader) (err error) {
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
		return withCode(err)
	}
	defer func() { s.discard(tmp, err) }()
	var st rootfs.State
	begin := procfs.LoadNow()
	if err := archive.Unpack(tmp, in, &st); err != nil {
		return withCode(err)
	}
	unpacked := procfs.LoadNow()
	if err := s.publish(tmp, s.imagePath(id)); err != nil {
		return withCode(err)
	}
	s.log.Info("image imported", "image", id, "entries", st.Entries, "bytes", st.Bytes,
		"unpack", unpacked.Since(begin), "flush", procfs.LoadNow().Since(unpacked))
	// Last, because what is read-only cannot be renamed.
	if err := btrfs.SetReadOnly(s.imagePath(id)); err != nil {
		s.log.Warn("the image stays writable", "image", id, "err", err)
	}
	return nil
}

// DeleteImage deletes an image. It is no error if there is none.
func (s *Store) DeleteImage(id string) error {
	if !validImage().MatchString(id) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no image id", id)
	}
	return s.delete(s.imagePath(id))
}

// Quiesce calls f, and keeps others from writing meanwhile to the files that f takes a
// snapshot of.
type Quiesce func(f func() error) error

// NoQuiesce is the [Quiesce] for files that nobody writes to.
func NoQuiesce(f func() error) error { return f() }

// CreateDistro makes a distro of the image, distro or snapshot that req names.
func (s *Store) CreateDistro(req *guestv1.CreateDistroRequest, quiesce Quiesce) (err error) {
	from, err := s.source(req)
	if err != nil {
		return err
	}
	to := s.DistroPath(req.Distro.Id)
	if distrofile.Exists(to) {
		return guest.DistroExists(req.Distro.Id)
	}
	tmp := s.staging()
	defer func() { s.discard(tmp, err) }()
	if err := quiesce(func() error { return btrfs.Snapshot(from, tmp) }); err != nil {
		return withCode(err)
	}
	if err := account.Prepare(tmp, req); err != nil {
		return withCode(err)
	}
	if err := s.SetRecord(req.Distro.Id, req.Distro.Record); err != nil {
		return err
	}
	return withCode(s.publish(tmp, to))
}

// DeleteDistro deletes a distro's files and its snapshots. It is no error if there are
// none.
func (s *Store) DeleteDistro(id string) error {
	if err := s.delete(s.DistroPath(id)); err != nil {
		return err
	}
	if err := s.deleteRecord(id); err != nil {
		return err
	}
	snapshots, err := s.Snapshots(id)
	if err != nil {
		return err
	}
	for _, snap := range snapshots {
		if err := s.delete(s.SnapshotPath(id, snap)); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(s.dir, "snapshots", id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// publish moves a finished subvolume from staging to its place, so that a crash leaves it
// there whole or not at all. When publish returns, the subvolume is on the disk.
func (s *Store) publish(tmp, to string) error {
	if err := s.sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	return s.sync()
}

// discard deletes an unfinished subvolume from staging, where err is not nil.
func (s *Store) discard(tmp string, err error) {
	if err == nil || !distrofile.Exists(tmp) {
		return
	}
	if err := btrfs.Delete(tmp); err != nil {
		s.log.Error("clean up after a failure", "err", err)
	}
}

func (s *Store) delete(path string) error {
	if !distrofile.Exists(path) {
		return nil
	}
	return withCode(btrfs.Delete(path))
}

// withCode gives err the code of the guest protocol.
func withCode(err error) error {
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
		return guest.DiskFull(err)
	case errors.As(err, &entry), errors.As(err, &limit), errors.As(err, &unusable), errors.Is(err, archive.ErrBad):
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_BAD_IMAGE, "", "%v", err)
	}
	return err
}
