//go:build unix

package machine

import (
	"os"
	"syscall"
)

// allocated is what a sparse file takes of the disk, in bytes.
func allocated(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512 // POSIX has the unit up to the system; all of ours take this one
	}
	return fi.Size()
}
