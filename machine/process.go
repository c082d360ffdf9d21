package machine

import (
	"path/filepath"
	"slices"
	"strings"
)

// runsSupervisor tells whether a process with these arguments is the supervisor
// that supervisor would start. The session that it was started from may have
// had another level of the log, and other directories but for the home.
func runsSupervisor(args, supervisor []string) bool {
	if len(args) == 0 || len(supervisor) == 0 || filepath.Base(args[0]) != filepath.Base(supervisor[0]) {
		return false
	}
	for _, arg := range supervisor[1:] {
		flag, _, _ := strings.Cut(arg, "=")
		if flag == "--log-level" || flag == "--runtime" || flag == "--cache" {
			continue
		}
		if !slices.Contains(args[1:], arg) {
			return false
		}
	}
	return true
}
