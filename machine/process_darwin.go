package machine

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// isSupervisor tells whether a process is a supervisor as supervisor starts it.
func isSupervisor(pid int, supervisor []string) bool {
	b, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil || len(b) < 4 {
		return false
	}
	// The number of arguments, the program's path, zeroes, the arguments.
	n := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	_, rest, _ := bytes.Cut(b[4:], []byte{0})
	rest = bytes.TrimLeft(rest, "\x00")
	var args []string
	for _, arg := range bytes.SplitN(rest, []byte{0}, n+1) {
		if len(args) < n {
			args = append(args, string(arg))
		}
	}
	return runsSupervisor(args, supervisor)
}
