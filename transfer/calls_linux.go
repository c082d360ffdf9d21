package transfer

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is a system call: unix.Syscall6, or after [StayInCalls] unix.RawSyscall6.
var call = unix.Syscall6

// StayInCalls has the threads of the program stay where they are while the kernel makes, reads
// and writes small files, for a program that does nothing else and may hang with its file
// system. Go's runtime gives a thread's place to another one if a call takes longer than 20 µs.
// In a VM without KVM each call does, and the change of threads takes longer than the call: it
// was three quarters of the time. It is to be called before anything else.
func StayInCalls() { call = unix.RawSyscall6 }

// The pointers below are to memory of Go that the call uses while it runs: they are converted
// in the argument list of the call, which keeps the memory alive until it returns.

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	for {
		fd, _, errno := call(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags), uintptr(mode), 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

func write(fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func pread(fd int, b []byte, at int64) (int, error) {
	n, _, errno := call(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(at), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// setTimes sets both times of an open file.
func setTimes(fd int, ts unix.Timespec) error {
	times := [2]unix.Timespec{ts, ts}
	_, _, errno := call(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func closefd(fd int) error {
	_, _, errno := call(unix.SYS_CLOSE, uintptr(fd), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
