package machine

import "golang.org/x/sys/unix"

// HostMemory is the memory of this machine in bytes.
func HostMemory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit)), nil
}
