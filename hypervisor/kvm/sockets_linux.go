package kvm

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// socketPair returns the two ends of a connection of a kind (SOCK_STREAM, SOCK_DGRAM): one for this process, and one
// for a child to inherit. The caller closes both.
func socketPair(name string, kind int) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	theirs := os.NewFile(uintptr(fds[1]), name)
	ours := os.NewFile(uintptr(fds[0]), name)
	defer ours.Close() // FileConn has its own copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	return conn.(*net.UnixConn), theirs, nil
}
