package forward

import (
	"net/netip"
	"path/filepath"

	"golang.org/x/sys/windows"

	"github.com/lsub/lsub/netstack/peeruser"
	"github.com/lsub/lsub/printable"
)

// Program returns the name, for people, of the program of the host that listens on an
// address; "" if it is not known.
func Program(network string, at netip.AddrPort) string {
	pid, ok := peeruser.Listener(network, func(has netip.AddrPort) bool { return inTheWay(has, at) })
	if !ok {
		return ""
	}
	return windowsProgram(imageOf(pid), pid)
}

// systemPID is that of Windows' kernel, which has web servers' ports (http.sys).
const systemPID = 4

// imageOf returns the name of a process' program; "" where this user may not ask.
func imageOf(pid uint32) string {
	if pid == systemPID {
		return "System"
	}
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return ""
	}
	defer windows.CloseHandle(process)
	name := make([]uint16, windows.MAX_LONG_PATH)
	size := uint32(len(name))
	if err := windows.QueryFullProcessImageName(process, 0, &name[0], &size); err != nil {
		return ""
	}
	return printable.Line(filepath.Base(windows.UTF16ToString(name[:size])))
}
