package peeruser

import (
	"encoding/binary"
	"net/netip"
)

// The rows of Windows' tables of sockets with their processes: MIB_TCPROW_OWNER_PID,
// MIB_TCP6ROW_OWNER_PID, MIB_UDPROW_OWNER_PID and MIB_UDP6ROW_OWNER_PID. A table is the number
// of rows in 4 bytes, then the rows.
type tableForm struct {
	length               int // of a row
	addrLength           int
	local, localPort     int // offsets in a row
	foreign, foreignPort int // -1 where a row has none
	pid                  int
}

func formOf(network string, is6 bool) tableForm {
	switch {
	case network == "udp" && is6:
		return tableForm{28, 16, 0, 20, -1, -1, 24}
	case network == "udp":
		return tableForm{12, 4, 0, 4, -1, -1, 8}
	case is6:
		return tableForm{56, 16, 0, 20, 24, 44, 52}
	}
	return tableForm{24, 4, 4, 8, 12, 16, 20}
}

// tablePID finds the process that has the client's socket.
func tablePID(table []byte, network string, client, server netip.AddrPort) (pid uint32, err error) {
	f := formOf(network, client.Addr().Is6())
	if len(table) < 4 {
		return 0, ErrGone
	}
	rows := binary.LittleEndian.Uint32(table)
	for b := table[4:]; rows > 0 && len(b) >= f.length; rows-- {
		local := f.endpoint(b, f.local, f.localPort)
		bound := local == client || f.foreign < 0 && local.Port() == client.Port() && local.Addr().IsUnspecified()
		if bound && (f.foreign < 0 || f.endpoint(b, f.foreign, f.foreignPort) == server) {
			if pid := binary.LittleEndian.Uint32(b[f.pid:]); pid != 0 { // 0: closed by its program
				return pid, nil
			}
		}
		b = b[f.length:]
	}
	return 0, ErrGone
}

// listenerPID finds the process that listens at an address, by a rule for the addresses in the way.
func listenerPID(table []byte, network string, is6 bool, inTheWay func(has netip.AddrPort) bool) (pid uint32, ok bool) {
	f := formOf(network, is6)
	if len(table) < 4 {
		return 0, false
	}
	rows := binary.LittleEndian.Uint32(table)
	for b := table[4:]; rows > 0 && len(b) >= f.length; rows-- {
		listens := f.foreign < 0 || f.endpoint(b, f.foreign, f.foreignPort).Port() == 0
		if pid := binary.LittleEndian.Uint32(b[f.pid:]); pid != 0 && listens && inTheWay(f.endpoint(b, f.local, f.localPort)) {
			return pid, true
		}
		b = b[f.length:]
	}
	return 0, false
}

// endpoint reads an address and a port, whose two bytes are in the network's order.
func (f tableForm) endpoint(row []byte, addr, port int) netip.AddrPort {
	a, _ := netip.AddrFromSlice(row[addr : addr+f.addrLength])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(row[port:]))
}
