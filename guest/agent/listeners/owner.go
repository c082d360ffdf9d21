package listeners

import (
	"strconv"
	"strings"
)

// groupsOfDistros is where the control groups of distros are, below the root
// of the hierarchy: package agent makes them.
const groupsOfDistros = "distros"

// distroOf returns the id of the distro that a control group belongs to, of its
// path below the root, "" for none.
func distroOf(group string) string {
	rest, ok := strings.CutPrefix(strings.Trim(group, "/"), groupsOfDistros+"/")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "/")
	return id
}

// groupInside returns the part of a group's path that its distro sees: what is
// below distros/ID/inside.
func groupInside(group string) string {
	parts := strings.SplitN(strings.Trim(group, "/"), "/", 4)
	if len(parts) < 4 {
		return ""
	}
	return parts[3]
}

// socketInode returns the inode in the target of a link in /proc/PID/fd, as in
// "socket:[4711]"; 0 where it is no socket.
func socketInode(link string) uint32 {
	rest, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// parseStatus takes the name and the innermost process number out of
// /proc/PID/status: the number that the distro knows the process by.
func parseStatus(status string) (name string, pid int) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Name":
			name = strings.TrimSpace(value)
		case "NSpid":
			if f := strings.Fields(value); len(f) > 1 {
				pid, _ = strconv.Atoi(f[1]) // the first is the VM's, those behind it are of containers
			}
			return name, pid
		}
	}
	return name, 0
}
