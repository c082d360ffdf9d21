// Package atomicfile writes files that appear whole or not at all. Whoever reads
// a file, and whatever crashes, finds the old contents or the new ones.
//
// [Write] replaces a small file. [Create] is for contents that are streamed, and
// for files that get their name from their contents. [Replace] is for files that
// a user names, and [ReplaceTree] also for directories.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the file at path by one with this content and mode. When it
// returns nil, the content is on the disk.
func Write(path string, content []byte, mode os.FileMode) (err error) {
	f, err := Create(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer f.Discard()
	_, err = f.Write(content)
	if err == nil && mode != privateMode {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Commit(path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// privateMode is the mode of a new file: for its user alone.
const privateMode = 0o600

// File is a file that has a temporary name until it is whole.
type File struct {
	*os.File
	done bool // renamed or removed
}

// Create makes a file in dir whose temporary name pattern tells, as in
// [os.CreateTemp]. It is for its user alone. The caller must call Commit or
// Discard; Discard may follow Commit, so that it can be deferred.
func Create(dir, pattern string) (*File, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	return &File{File: f}, nil
}

// Commit writes what is in memory to the disk, closes the file and renames it to
// path, which has to be on the same disk.
func (f *File) Commit(path string) error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := rename(f.Name(), path); err != nil {
		return err
	}
	f.done = true
	return nil
}

// Discard closes and removes a file that was not committed.
func (f *File) Discard() error {
	if f.done {
		return nil
	}
	f.done = true
	f.Close() // it may be closed by Commit
	return os.Remove(f.Name())
}

// rename renames a file in a way that lasts through a power cut.
func rename(from, to string) error {
	if err := renameOver(from, to); err != nil {
		return err
	}
	syncDir(filepath.Dir(to))
	return nil
}
