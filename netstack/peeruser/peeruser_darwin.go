package peeruser

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

func lookUp(network string, client, server netip.AddrPort) (owner, error) {
	list, err := unix.SysctlRaw("net.inet." + network + ".pcblist_n")
	if err != nil {
		return owner{}, fmt.Errorf("the system's list of sockets: %w", err)
	}
	uid, err := pcbOwner(list, client, server)
	if err != nil {
		return owner{}, err
	}
	if uid == 0 || int(uid) == os.Geteuid() {
		return owner{allowed: true}, nil
	}
	name := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return owner{name: "user " + name}, nil
}
