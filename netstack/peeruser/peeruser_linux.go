package peeruser

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

func lookUp(network string, client, server netip.AddrPort) (owner, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return owner{}, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, diagRequest(network, client, server), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return owner{}, fmt.Errorf("sock_diag: %w", err)
	}
	var buf [4096]byte
	n, _, err := unix.Recvfrom(fd, buf[:], 0) // the kernel has answered within Sendto
	if err != nil {
		return owner{}, fmt.Errorf("sock_diag: %w", err)
	}
	uid, err := diagAnswer(buf[:n])
	if err != nil {
		return owner{}, err
	}
	return ownerOf(uid), nil
}
