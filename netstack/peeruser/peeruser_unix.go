//go:build linux || darwin

package peeruser

import (
	"os"
	"os/user"
	"strconv"
)

// ownerOf tells whose a socket of a user is.
func ownerOf(uid uint32) owner {
	if uid == 0 || int(uid) == os.Geteuid() {
		return owner{allowed: true}
	}
	name := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return owner{name: "user " + name}
}
