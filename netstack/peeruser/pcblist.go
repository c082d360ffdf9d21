package peeruser

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The records of macOS' sysctl net.inet.tcp.pcblist_n and net.inet.udp.pcblist_n: xinpgen,
// then for each socket one record of each kind, in XNU's bsd/netinet/in_pcb.h and
// bsd/sys/socketvar.h. Each begins with its length and kind; a multiple of 8 bytes follows.
const (
	kindSocket = 0x001 // xsocket_n
	kindPCB    = 0x010 // xinpcb_n

	pcbForeignPort, pcbLocalPort = 16, 18
	pcbVersion                   = 44 // inp_vflag: 1 for IPv4, 2 for IPv6
	pcbForeign, pcbLocal         = 48, 64
	pcbAddr4                     = 12 // of an IPv4 address in its field of 16 bytes
	pcbLength                    = 80
	socketUID                    = 64
	socketLength                 = 68
)

// pcbOwner finds the user of the socket that is bound to client and, where it is connected,
// connected to server.
func pcbOwner(list []byte, client, server netip.AddrPort) (uid uint32, err error) {
	e := binary.LittleEndian // of all machines that macOS runs on
	if len(list) < 4 || uint64(e.Uint32(list)) > uint64(len(list)) {
		return 0, errors.New("the system's list of sockets is cut off")
	}
	found := false // the user is in a record behind that of the addresses
	for b := rest(list, e.Uint32(list)); len(b) >= 8; {
		length, kind := e.Uint32(b), e.Uint32(b[4:])
		if length < 8 || uint64(length) > uint64(len(b)) {
			break
		}
		switch {
		case kind == kindPCB && length >= pcbLength:
			local, foreign := pcbAddrs(b)
			connected := foreign.Port() != 0
			found = local.Port() == client.Port() &&
				(local.Addr() == client.Addr() || local.Addr().IsUnspecified() && !connected) &&
				(foreign == server || !connected)
		case kind == kindSocket && length >= socketLength && found:
			return e.Uint32(b[socketUID:]), nil
		}
		b = rest(b, length)
	}
	return 0, ErrGone
}

// rest returns what follows a record of so many bytes.
func rest(b []byte, length uint32) []byte {
	return b[min((uint64(length)+7)&^7, uint64(len(b))):]
}

// pcbAddrs reads the addresses of an xinpcb_n.
func pcbAddrs(b []byte) (local, foreign netip.AddrPort) {
	addr := func(field int) netip.Addr {
		if b[pcbVersion]&2 != 0 {
			return netip.AddrFrom16([16]byte(b[field : field+16])).Unmap()
		}
		return netip.AddrFrom4([4]byte(b[field+pcbAddr4 : field+16]))
	}
	port := func(at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
	return netip.AddrPortFrom(addr(pcbLocal), port(pcbLocalPort)), netip.AddrPortFrom(addr(pcbForeign), port(pcbForeignPort))
}
