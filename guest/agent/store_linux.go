package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/rootfs"
)

// store keeps images and distros as subvolumes of the data disk:
//
//	images/sha256-HEX    read-only
//	distros/ID
//	staging/…            what is not whole yet; emptied when the store opens
//
// What stands in images or distros is whole: it was made in staging, flushed
// and renamed.
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
	for _, sub := range []string{"images", "distros", "staging"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("data disk: %w", err)
		}
	}
	left, err := names(filepath.Join(dir, "staging"))
	if err != nil {
		return nil, err
	}
	for _, name := range left {
		log.Warn("remove what an interrupted import left", "name", name)
		if err := deleteSubvolume(filepath.Join(dir, "staging", name)); err != nil {
			return nil, err
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
	s.serial++
	return filepath.Join(s.dir, "staging", fmt.Sprint(s.serial))
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
func (s *store) importImage(id string, in *inbox) (err error) {
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

	if exists(s.imagePath(id)) {
		return nil
	}
	tmp := s.staging()
	if err := createSubvolume(tmp); err != nil {
		return storeError(err)
	}
	defer func() {
		if err != nil {
			if e := deleteSubvolume(tmp); e != nil {
				s.log.Error("clean up after a failed import", "err", e)
			}
		}
	}()
	if err := unpack(tmp, in, &rootfs.State{}); err != nil {
		return storeError(err)
	}
	if err := s.sync(); err != nil {
		return storeError(err)
	}
	if err := os.Rename(tmp, s.imagePath(id)); err != nil {
		return storeError(err)
	}
	// Last, because what is read-only cannot be renamed.
	if err := setReadOnly(s.imagePath(id), true); err != nil {
		s.log.Warn("the image stays writable", "image", id, "err", err)
	}
	return nil
}

// createDistro makes a distro of an image, with an account where the request
// has one.
func (s *store) createDistro(req *guestv1.CreateDistroRequest) (err error) {
	id, image := req.Distro.Id, req.GetImage()
	if !validImage().MatchString(image) || !exists(s.imagePath(image)) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no image %q", image)
	}
	if exists(s.distroPath(id)) {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "", "distro %s exists", id)
	}
	tmp := s.staging()
	if err := snapshot(s.imagePath(image), tmp, false); err != nil {
		return storeError(err)
	}
	defer func() {
		if err != nil {
			if e := deleteSubvolume(tmp); e != nil {
				s.log.Error("clean up after a failed create", "err", e)
			}
		}
	}()
	if err := prepareDistro(tmp, req); err != nil {
		return storeError(err)
	}
	if err := s.sync(); err != nil {
		return storeError(err)
	}
	return storeError(os.Rename(tmp, s.distroPath(id)))
}

// deleteDistro deletes a distro's files. One that is not there is deleted.
func (s *store) deleteDistro(id string) error {
	if !exists(s.distroPath(id)) {
		return nil
	}
	return storeError(deleteSubvolume(s.distroPath(id)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
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
	case errors.As(err, &entry), errors.As(err, &limit), errors.As(err, &unusable), errors.Is(err, errBadArchive):
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_BAD_IMAGE, "", "%v", err)
	}
	return err
}
