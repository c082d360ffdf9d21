package peeruser

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Of iphlpapi.h.
const (
	tcpTableOwnerPIDAll = 5 // TCP_TABLE_OWNER_PID_ALL
	udpTableOwnerPID    = 1 // UDP_TABLE_OWNER_PID
)

var (
	iphlpapi            = windows.NewLazySystemDLL("iphlpapi.dll")
	getExtendedTCPTable = iphlpapi.NewProc("GetExtendedTcpTable")
	getExtendedUDPTable = iphlpapi.NewProc("GetExtendedUdpTable")
)

func lookUp(network string, client, server netip.AddrPort) (owner, error) {
	table, err := socketTable(network, client.Addr().Is6())
	if err != nil {
		return owner{}, err
	}
	pid, err := tablePID(table, network, client, server)
	if err != nil {
		return owner{}, err
	}
	return ownerOf(pid)
}

// socketTable returns the system's table of the sockets of a family.
func socketTable(network string, is6 bool) ([]byte, error) {
	get, class, family := getExtendedTCPTable, uintptr(tcpTableOwnerPIDAll), uintptr(windows.AF_INET)
	if network == "udp" {
		get, class = getExtendedUDPTable, udpTableOwnerPID
	}
	if is6 {
		family = windows.AF_INET6
	}
	table := make([]byte, 64<<10)
	for {
		size := uint32(len(table))
		r, _, _ := get.Call(uintptr(unsafe.Pointer(&table[0])), uintptr(unsafe.Pointer(&size)), 0, family, class, 0)
		switch err := windows.Errno(r); {
		case err == windows.ERROR_INSUFFICIENT_BUFFER && int(size) > len(table):
			table = make([]byte, size+4<<10) // it may grow meanwhile
		case err != 0:
			return nil, fmt.Errorf("the system's table of sockets: %w", err)
		default:
			return table, nil
		}
	}
}

// ownerOf tells whose a process is. One that this user may not look at is somebody else's.
func ownerOf(pid uint32) (owner, error) {
	stranger := owner{name: fmt.Sprintf("another user's process %d", pid)}
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return stranger, nil
	}
	defer windows.CloseHandle(process)
	var token windows.Token
	if err := windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token); err != nil {
		return stranger, nil
	}
	defer token.Close()
	theirs, err := token.GetTokenUser()
	if err != nil {
		return owner{}, err
	}
	mine, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return owner{}, err
	}
	if theirs.User.Sid.Equals(mine.User.Sid) || theirs.User.Sid.IsWellKnown(windows.WinLocalSystemSid) {
		return owner{allowed: true}, nil
	}
	return stranger, nil
}

// Listener finds the process that listens at an address in the way of another one.
func Listener(network string, inTheWay func(has netip.AddrPort) bool) (pid uint32, ok bool) {
	for _, is6 := range []bool{false, true} {
		table, err := socketTable(network, is6)
		if err != nil {
			continue
		}
		if pid, ok := listenerPID(table, network, is6, inTheWay); ok {
			return pid, true
		}
	}
	return 0, false
}
