package archive

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// estimateTime is how long the first byte may wait for the estimate.
const estimateTime = 5 * time.Second

// Estimate returns about how many bytes the archive of a tree will have, 0 where there
// are too many files to count in a few seconds.
func Estimate(ctx context.Context, dir string) uint64 {
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

// addSizes adds up what is in a directory, and tells whether it got to its end. It
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
