package procfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Name returns the name of a process's program, or its id where it has none any more.
func Name(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if name := strings.TrimSpace(string(b)); name != "" {
		return strings.ToValidUTF8(name, "?")
	}
	return strconv.Itoa(pid)
}

// InnerPID returns a process's number in its own pid namespace, 0 if it is gone.
func InnerPID(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(rest)
			if len(f) == 0 {
				return 0
			}
			n, _ := strconv.Atoi(f[len(f)-1])
			return n
		}
	}
	return 0
}

// HasTerminal tells whether a process has a controlling terminal.
func HasTerminal(pid int) bool {
	fields := statFields(pid)
	return len(fields) > 4 && fields[4] != "0"
}

// IsExiting tells whether a process exits or has exited. Nobody can enter the
// namespaces of a PID 1 that does.
func IsExiting(pid int) bool {
	fields := statFields(pid)
	if len(fields) < 7 {
		return true // gone
	}
	const exiting = 0x4 // PF_EXITING of the kernel's
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return err != nil || flags&exiting != 0
}

// statFields returns the fields of /proc/PID/stat from the third one on. Before it
// stands a name in parentheses, which may hold anything.
func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}
