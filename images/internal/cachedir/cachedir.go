// Package cachedir has helpers for all writers to lsub's cache directory: the age of old
// files, and advice for a full disk.
package cachedir

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/lsub/lsub/hint"
)

// OlderThan reports whether the file at path was last changed longer ago than age. It is
// false if the file does not exist.
func OlderThan(path string, age time.Duration) bool {
	info, err := os.Lstat(path)
	return err == nil && time.Since(info.ModTime()) > age
}

// NoSpace adds a hint to an error from a full disk; dir is a directory on that disk. It
// returns other errors, and nil, unchanged.
func NoSpace(err error, dir string) error {
	const diskFull = syscall.Errno(112) // Windows' ERROR_DISK_FULL
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		runtime.GOOS == "windows" && errors.Is(err, diskFull)
	if !full {
		return err
	}
	return hint.New(err, "free some space on the disk that holds "+dir)
}
