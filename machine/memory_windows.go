package machine

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// memoryStatus is MEMORYSTATUSEX of sysinfoapi.h.
type memoryStatus struct {
	length, load                                  uint32
	totalPhys, availPhys, totalPageFile           uint64
	availPageFile, totalVirtual, availVirtual, xx uint64
}

// HostMemory is the memory of this machine in bytes.
func HostMemory() (int64, error) {
	var m memoryStatus
	m.length = uint32(unsafe.Sizeof(m))
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	// Sound: m has the layout and the length that the call asks for, and lives
	// until it returns, which is before the call's own end.
	if ok, _, err := call.Call(uintptr(unsafe.Pointer(&m))); ok == 0 {
		return 0, err
	}
	return int64(m.totalPhys), nil
}
