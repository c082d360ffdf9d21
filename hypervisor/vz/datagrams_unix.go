//go:build unix

package vz

import (
	"net"
	"os"
	"syscall"
)

// Sizes of the buffers of the sockets for frames, in bytes. The framework wants the one for
// receiving to be four times the one for sending. On macOS, the one for sending is also the
// longest datagram.
const (
	sendBuffer    = 1 << 20
	receiveBuffer = 4 * sendBuffer
)

// datagramPair returns two connected datagram sockets:
// our end, and a file for the framework. The caller closes both.
func datagramPair() (_ net.Conn, _ *os.File, err error) {
	syscall.ForkLock.RLock() // macOS has no flag to make them close on exec
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "card"), os.NewFile(uintptr(fds[1]), "card of the framework")
	defer ours.Close() // FileConn has its own copy
	defer func() {
		if err != nil {
			theirs.Close()
		}
	}()
	for _, fd := range fds {
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer); err != nil {
			return nil, nil, os.NewSyscallError("setsockopt SO_SNDBUF", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer); err != nil {
			return nil, nil, os.NewSyscallError("setsockopt SO_RCVBUF", err)
		}
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	return conn, theirs, nil
}

// isLocked tells whether another program has locked a file.
func isLocked(f *os.File) bool {
	// The lock ends when the file is closed.
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return err == syscall.EWOULDBLOCK
}
