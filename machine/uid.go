package machine

import (
	"os/user"
	"strconv"
)

// FirstUID is the number of the first account for people in a distro.
const FirstUID = 1000

// AccountUID returns the number that a user of the host has in distros: their own, FirstUID
// where distributions keep that for themselves (macOS counts from 501), or where there is none
// (Windows), and 0 for root.
func AccountUID(uid string) uint32 {
	n, err := strconv.ParseUint(uid, 10, 32)
	switch {
	case err == nil && n == 0:
		return 0
	case err != nil, n < FirstUID, n >= 65534 && n < 65536, n == 1<<32-1:
		return FirstUID
	}
	return uint32(n)
}

// HostUID is AccountUID of the user who runs this process.
func HostUID() uint32 {
	u, err := user.Current()
	if err != nil {
		return FirstUID
	}
	return AccountUID(u.Uid)
}
