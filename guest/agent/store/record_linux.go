package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// maxRecord is the most bytes of a distro's record.
const maxRecord = 64 << 10

func (s *Store) recordPath(id string) string { return filepath.Join(s.dir, "records", id) }

// SetRecord keeps what the host has registered of a distro. An empty record changes
// nothing.
func (s *Store) SetRecord(id string, record []byte) error {
	if len(record) > maxRecord {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the record of distro %s has more than %d bytes", id, maxRecord)
	}
	if len(record) == 0 || bytes.Equal(record, s.Record(id)) {
		return nil
	}
	return withCode(atomicfile.Write(s.recordPath(id), record, 0o600))
}

// Record returns the record of a distro, nil where there is none.
func (s *Store) Record(id string) []byte {
	b, err := os.ReadFile(s.recordPath(id))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("read a distro's record", "id", id, "err", err)
		}
		return nil
	}
	return b
}

// deleteRecord deletes the record of a distro.
func (s *Store) deleteRecord(id string) error {
	if err := os.Remove(s.recordPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
