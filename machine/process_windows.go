package machine

import (
	"strings"

	"golang.org/x/sys/windows"
)

// isSupervisor tells whether a process runs the program of supervisor: Windows
// does not tell its arguments.
func isSupervisor(pid int, supervisor []string) bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return false
	}
	defer windows.CloseHandle(h)
	var b [windows.MAX_LONG_PATH]uint16
	n := uint32(len(b))
	if windows.QueryFullProcessImageName(h, 0, &b[0], &n) != nil || len(supervisor) == 0 {
		return false
	}
	return strings.EqualFold(windows.UTF16ToString(b[:n]), supervisor[0])
}
