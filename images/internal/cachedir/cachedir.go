// Package cachedir has what all writers to lsub's cache directory need: the age
// of old files, and advice where the disk is full.
package cachedir

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/lsub/lsub/hint"
)

// OlderThan tells whether the file at path was last changed longer ago than
// age. It is false for a file that is not there.
func OlderThan(path string, age time.Duration) bool {
	info, err := os.Lstat(path)
	return err == nil && time.Since(info.ModTime()) > age
}

// NoSpace adds a hint to an error that a full disk caused; dir is a directory
// on that disk. Other errors, and nil, are returned as they are.
func NoSpace(err error, dir string) error {
	const diskFull = syscall.Errno(112) // Windows' ERROR_DISK_FULL
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		runtime.GOOS == "windows" && errors.Is(err, diskFull)
	if !full {
		return err
	}
	return hint.New(err, "free some space on the disk that holds "+dir)
}
