//go:build linux || darwin

package transfer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/lsub/lsub/rootfs/pax"
)

// openFile opens a file for reading. A link that was put in its place is not followed, and
// nothing waits for the other end of a pipe.
func openFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// identity returns which file it is, and whether it has several names.
func identity(info fs.FileInfo) (id fileID, several bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), uint64(st.Ino)}, true
}

// extents returns the parts of a file that are no holes; nil if it has no holes.
func extents(f *os.File, info fs.FileInfo) ([]pax.Extent, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int64(st.Blocks)*512 >= info.Size() {
		return nil, nil
	}
	parts, size := []pax.Extent{}, info.Size()
	for at := int64(0); at < size; {
		start, err := f.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil {
			return nil, nil // a file system that does not tell
		}
		end, err := f.Seek(start, seekHole)
		if err != nil {
			return nil, nil
		}
		if len(parts) == maxParts-1 {
			end = size // so many holes go on as zeros
		}
		if start < size {
			parts = append(parts, pax.Extent{Offset: start, Size: min(end, size) - start})
		}
		at = end
	}
	_, err := f.Seek(0, io.SeekStart)
	return parts, err
}

// maxParts bounds the map of a file with holes.
const maxParts = 64 << 10

const errDiskFull = syscall.ENOSPC
