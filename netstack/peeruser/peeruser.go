// Package peeruser tells which user of this machine has the other end of a connection over
// the loopback interface. TCP and UDP carry no user, so the operating system's table of
// sockets is asked: by sock_diag(7) on Linux, the tables of iphlpapi on Windows, and the list
// of protocol control blocks on macOS.
package peeruser

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrGone says that the system knows no socket at the other end, or one that its program has
// closed: nobody knows any more whose it was.
var ErrGone = errors.New("the client is gone, or on another machine")

// Check returns nil if the client of a connection from client to server belongs to the user
// that this process runs as, or to the administrator (root, SYSTEM). Else the error says who
// it is, or why that is not known. network is "tcp" or "udp".
func Check(network string, client, server netip.AddrPort) error {
	client, server = unmapped(client), unmapped(server)
	if !client.Addr().IsLoopback() && client.Addr() != server.Addr() {
		return ErrGone
	}
	who, err := lookUp(network, client, server)
	if err != nil {
		return err
	}
	if !who.allowed {
		return fmt.Errorf("the client belongs to %s", who.name)
	}
	return nil
}

// owner is whose a socket is.
type owner struct {
	allowed bool   // it is this user's, or the administrator's
	name    string // for people
}

// unmapped returns an address as its own family has it, without a zone.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
