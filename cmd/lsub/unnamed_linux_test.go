package main

import "golang.org/x/sys/unix"

// hasUnnamedFiles tells whether a directory can hold files without a name.
func hasUnnamedFiles(dir string) (bool, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, nil
	}
	return true, unix.Close(fd)
}
