package peeruser

import (
	"fmt"
	"net/netip"

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
	return ownerOf(uid), nil
}
