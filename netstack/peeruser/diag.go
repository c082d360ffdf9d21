package peeruser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Numbers of Linux, which are the same on every architecture: linux/netlink.h,
// linux/sock_diag.h and linux/inet_diag.h.
const (
	familyIPv4, familyIPv6 = 2, 10
	protoTCP, protoUDP     = 6, 17

	msgError      = 2  // NLMSG_ERROR
	msgByFamily   = 20 // SOCK_DIAG_BY_FAMILY
	flagRequest   = 1  // NLM_F_REQUEST
	messageHeader = 16 // nlmsghdr
	requestLength = messageHeader + 56
	diagMessage   = 72 // inet_diag_msg
	diagUID       = 64 // offset of idiag_uid in it
	diagInode     = 68 // of idiag_inode
	noCookie      = ^uint32(0)
)

// diagRequest asks the kernel for the one socket of a client (nlmsghdr, inet_diag_req_v2).
func diagRequest(network string, client, server netip.AddrPort) []byte {
	e := binary.NativeEndian
	family, proto := byte(familyIPv4), byte(protoTCP)
	if client.Addr().Is6() {
		family = familyIPv6
	}
	src, dst := client, server
	if network == "udp" {
		// The kernel looks for the socket that a packet from src to dst reaches.
		proto, src, dst = protoUDP, server, client
	}
	b := e.AppendUint32(nil, requestLength)
	b = e.AppendUint16(b, msgByFamily)
	b = e.AppendUint16(b, flagRequest)
	b = e.AppendUint32(b, 0) // sequence
	b = e.AppendUint32(b, 0) // port
	b = append(b, family, proto, 0, 0)
	b = e.AppendUint32(b, ^uint32(0)) // in any state
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = appendAddr(appendAddr(b, src.Addr()), dst.Addr())
	b = e.AppendUint32(b, 0) // any interface
	b = e.AppendUint32(b, noCookie)
	return e.AppendUint32(b, noCookie)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	var field [16]byte
	copy(field[:], a.AsSlice())
	return append(b, field[:]...)
}

// diagAnswer reads the kernel's answer: the user that has the socket.
func diagAnswer(b []byte) (uid uint32, err error) {
	e := binary.NativeEndian
	if len(b) < messageHeader || uint64(e.Uint32(b)) > uint64(len(b)) {
		return 0, errors.New("the kernel's answer about a socket is cut off")
	}
	b, kind := b[messageHeader:], e.Uint16(b[4:])
	switch {
	case kind == msgError && len(b) >= 4:
		if errno := syscall.Errno(-int32(e.Uint32(b))); errno != syscall.ENOENT {
			return 0, fmt.Errorf("the kernel does not tell whose a socket is: %w", errno)
		}
		return 0, ErrGone
	case kind != msgByFamily || len(b) < diagMessage:
		return 0, fmt.Errorf("the kernel's answer about a socket is of kind %d with %d bytes", kind, len(b))
	case e.Uint32(b[diagInode:]) == 0:
		return 0, ErrGone // closed by its program: the kernel says root, whoever had it
	}
	return e.Uint32(b[diagUID:]), nil
}
