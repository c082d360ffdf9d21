package machine

import (
	"fmt"
	"os"
	"strings"
)

// isSupervisor tells whether a process is a supervisor as supervisor starts it.
func isSupervisor(pid int, supervisor []string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	return runsSupervisor(strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"), supervisor)
}
