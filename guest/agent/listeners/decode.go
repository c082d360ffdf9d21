package listeners

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Numbers of the kernel's, which are the same on every architecture.
const (
	familyIPv4, familyIPv6 = 2, 10
	protoTCP, protoUDP     = 6, 17

	stateEstablished = 1
	stateFinWait1    = 4
	stateFinWait2    = 5
	stateClose       = 7 // also of a UDP socket that is not connected
	stateCloseWait   = 8
	stateListen      = 10

	msgError       = 2  // NLMSG_ERROR
	msgDone        = 3  // NLMSG_DONE
	msgByFamily    = 20 // SOCK_DIAG_BY_FAMILY
	attrV6Only     = 11 // INET_DIAG_SKV6ONLY
	attrCgroup     = 21 // INET_DIAG_CGROUP_ID
	messageHeader  = 16 // nlmsghdr
	diagMessage    = 72 // inet_diag_msg
	attrHeader     = 4  // nlattr
	requestLength  = messageHeader + 56
	flagRequest    = 1     // NLM_F_REQUEST
	flagDump       = 0x300 // NLM_F_DUMP
	flagDumpBroken = 0x10  // NLM_F_DUMP_INTR
)

// answer is what a datagram of the kernel's says.
type answer struct {
	sockets []socket
	changed bool // the tables changed meanwhile: some sockets may be missing
	done    bool // it is the last
}

// socket is what the kernel says of one.
type socket struct {
	family, state byte
	addr          netip.AddrPort // its own; IPv4 within IPv6 is IPv4
	inode         uint32
	v6only        bool
	group         uint64         // id of a control group, 0 where the kernel does not say
	peer          netip.AddrPort // the other end; unspecified where there is none
}

// appendRequest appends the request for the sockets of a family and protocol
// in the states of a mask (nlmsghdr, inet_diag_req_v2).
func appendRequest(b []byte, family, proto byte, states uint32) []byte {
	e := binary.NativeEndian
	b = e.AppendUint32(b, requestLength)
	b = e.AppendUint16(b, msgByFamily)
	b = e.AppendUint16(b, flagRequest|flagDump)
	b = append(b, make([]byte, 8)...) // sequence, port id
	b = append(b, family, proto, 0, 0)
	b = e.AppendUint32(b, states)
	return append(b, make([]byte, 48)...) // socket id: any
}

// decode reads one datagram of a dump's answer.
func decode(b []byte) (answer, error) {
	e := binary.NativeEndian
	var a answer
	for len(b) > 0 {
		if len(b) < messageHeader {
			return a, fmt.Errorf("sock_diag: %d bytes in place of a message", len(b))
		}
		n := int(e.Uint32(b))
		if n < messageHeader || n > len(b) {
			return a, fmt.Errorf("sock_diag: a message of %d bytes in %d", n, len(b))
		}
		kind, body := e.Uint16(b[4:]), b[messageHeader:n]
		a.changed = a.changed || e.Uint16(b[6:])&flagDumpBroken != 0
		switch kind {
		case msgDone:
			a.done = true
			return a, nil
		case msgError:
			if len(body) < 4 {
				return a, errors.New("sock_diag: an error without a number")
			}
			return a, fmt.Errorf("sock_diag: %w", syscall.Errno(-int32(e.Uint32(body))))
		case msgByFamily:
			s, err := decodeSocket(body)
			if err != nil {
				return a, err
			}
			a.sockets = append(a.sockets, s)
		}
		b = b[min(align(n), len(b)):]
	}
	return a, nil
}

// decodeSocket reads an inet_diag_msg and the attributes behind it.
func decodeSocket(b []byte) (socket, error) {
	e := binary.NativeEndian
	if len(b) < diagMessage {
		return socket{}, fmt.Errorf("sock_diag: %d bytes in place of a socket", len(b))
	}
	s := socket{family: b[0], state: b[1], inode: e.Uint32(b[68:])}
	var addr, peer netip.Addr
	switch s.family {
	case familyIPv4:
		addr, peer = netip.AddrFrom4([4]byte(b[8:12])), netip.AddrFrom4([4]byte(b[24:28]))
	case familyIPv6:
		addr, peer = netip.AddrFrom16([16]byte(b[8:24])).Unmap(), netip.AddrFrom16([16]byte(b[24:40])).Unmap()
	default:
		return socket{}, fmt.Errorf("sock_diag: a socket of family %d", s.family)
	}
	s.addr = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[4:]))
	s.peer = netip.AddrPortFrom(peer, binary.BigEndian.Uint16(b[6:]))
	for b = b[diagMessage:]; len(b) >= attrHeader; {
		n, kind := int(e.Uint16(b)), e.Uint16(b[2:])
		if n < attrHeader || n > len(b) {
			return socket{}, fmt.Errorf("sock_diag: an attribute of %d bytes in %d", n, len(b))
		}
		switch value := b[attrHeader:n]; {
		case kind == attrV6Only && len(value) >= 1:
			s.v6only = value[0] != 0
		case kind == attrCgroup && len(value) >= 8:
			s.group = e.Uint64(value)
		}
		b = b[min(align(n), len(b)):]
	}
	return s, nil
}

// align rounds up to the 4 bytes at which the parts of a message begin.
func align(n int) int { return (n + 3) &^ 3 }
