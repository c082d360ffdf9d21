package ttywait

import "golang.org/x/sys/unix"

// Offsets of a function's first and third argument in struct pt_regs.
const (
	arg1 = 0  // x0
	arg3 = 16 // x2
)

// pollCalls are the system calls that wait for files.
var pollCalls = map[int]bool{
	unix.SYS_PPOLL: true, unix.SYS_PSELECT6: true,
	unix.SYS_EPOLL_PWAIT: true, unix.SYS_EPOLL_PWAIT2: true, unix.SYS_IO_URING_ENTER: true,
}
