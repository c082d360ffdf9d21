package guesttcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/lsub/lsub/virtionet"
)

// The parts of a frame before its TCP header. Sources: virtio 1.2, section 5.1.6; RFC 791,
// 8200 and 9293.
const (
	vnetLen = virtionet.HeaderLen
	ethLen  = 14
	ip4Len  = 20
	ip6Len  = 40
	tcpLen  = 20

	ipAt = vnetLen + ethLen
	// headMax is the longest header that we write: of an IPv6 SYN.
	headMax = ipAt + ip6Len + tcpLen + synOptions
	// headRead is the longest header that we read: IPv4 with options and TCP with options.
	headRead = ipAt + 60 + 60

	synOptions = 8

	typeIP4 = 0x0800
	typeIP6 = 0x86dd
	protTCP = 6
)

// maxSegment is the maximum payload of a frame, in bytes, for both IPv4 and IPv6: lo takes
// packets of 64 KiB.
const maxSegment = 1<<16 - ip6Len - tcpLen

// minSegment is the smallest segment size that a guest can ask for.
const minSegment = 536

// guestSegment is the segment size that we ask the guest for. Linux passes at least two
// segments to a card that divides them itself, so with this size they make one frame. With a
// larger one, Linux divides them first.
const guestSegment = 32<<10 - 256

// windowScale is the shift of our windows, in bits; the guest has its own.
const windowScale = 7

const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// flow identifies a connection: the ports and the family.
type flow struct {
	guest, host uint16
	v6          bool
}

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

func (f flow) addr() netip.Addr {
	if f.v6 {
		return loopback6
	}
	return loopback4
}

// segment is the content of a frame from the guest.
type segment struct {
	flow     flow
	flags    byte
	seq, ack uint32
	window   uint16
	mss      int      // of a SYN; 0 if absent
	scale    int      // of a SYN; -1 if absent
	payload  [][]byte // in the guest's memory
	n        int      // bytes of payload

	head [headRead]byte // a copy, because the guest can change its own
}

var errFrame = errors.New("not a TCP segment of the guest's loopback")

// decode parses a frame. The frame is ours if its destination address is zero.
func (s *segment) decode(parts [][]byte) (ours bool, err error) {
	total, n := 0, 0
	for _, p := range parts {
		total += len(p)
		n += copy(s.head[n:], p)
	}
	b := s.head[:n]
	if n < ipAt || [6]byte(b[vnetLen:]) != [6]byte{} {
		return false, nil
	}
	s.flow.v6 = false
	var tcpAt, end int
	be := binary.BigEndian
	ip := b[ipAt:]
	switch be.Uint16(b[ipAt-2:]) {
	case typeIP4:
		if len(ip) < ip4Len || ip[0]>>4 != 4 {
			return true, errFrame
		}
		tcpAt, end = ipAt+int(ip[0]&15)*4, ipAt+int(be.Uint16(ip[2:]))
		if tcpAt < ipAt+ip4Len || be.Uint16(ip[6:])&0x3fff != 0 || ip[9] != protTCP ||
			netip.AddrFrom4([4]byte(ip[12:])) != loopback4 || netip.AddrFrom4([4]byte(ip[16:])) != loopback4 {
			return true, errFrame
		}
	case typeIP6:
		if len(ip) < ip6Len || ip[0]>>4 != 6 || ip[6] != protTCP ||
			netip.AddrFrom16([16]byte(ip[8:])) != loopback6 || netip.AddrFrom16([16]byte(ip[24:])) != loopback6 {
			return true, errFrame
		}
		s.flow.v6 = true
		tcpAt, end = ipAt+ip6Len, ipAt+ip6Len+int(be.Uint16(ip[4:]))
	default:
		return true, errFrame
	}
	if tcpAt+tcpLen > n || end > total {
		return true, errFrame
	}
	tcp := b[tcpAt:]
	dataAt := tcpAt + int(tcp[12]>>4)*4
	if dataAt < tcpAt+tcpLen || dataAt > n || dataAt > end {
		return true, errFrame
	}
	s.flow.guest, s.flow.host = be.Uint16(tcp), be.Uint16(tcp[2:])
	s.seq, s.ack = be.Uint32(tcp[4:]), be.Uint32(tcp[8:])
	s.flags, s.window = tcp[13], be.Uint16(tcp[14:])
	s.options(tcp[tcpLen : dataAt-tcpAt])
	s.slice(parts, dataAt, end)
	return true, nil
}

// options parses the options of a SYN.
func (s *segment) options(p []byte) {
	s.mss, s.scale = 0, -1
	if s.flags&flagSYN == 0 {
		return
	}
	for len(p) > 0 {
		switch kind := p[0]; {
		case kind == 0:
			return
		case kind == 1:
			p = p[1:]
			continue
		case len(p) < 2 || p[1] < 2 || int(p[1]) > len(p):
			return
		case kind == 2 && p[1] == 4:
			s.mss = int(binary.BigEndian.Uint16(p[2:]))
		case kind == 3 && p[1] == 3:
			s.scale = min(int(p[2]), 14)
		}
		p = p[p[1]:]
	}
}

// slice sets the payload to the bytes of parts between two offsets.
func (s *segment) slice(parts [][]byte, from, to int) {
	s.payload, s.n = s.payload[:0], to-from
	for _, p := range parts {
		lo, hi := min(from, len(p)), min(to, len(p))
		if lo < hi {
			s.payload = append(s.payload, p[lo:hi])
		}
		from, to = from-lo, to-hi
	}
}

// drop removes n bytes from the front of parts.
func drop(parts [][]byte, n int) [][]byte {
	for n > 0 {
		c := min(n, len(parts[0]))
		n -= c
		if parts[0] = parts[0][c:]; len(parts[0]) == 0 {
			parts = parts[1:]
		}
	}
	return parts
}

// gather fills p from the front of parts, which must be long enough.
func gather(p []byte, parts [][]byte) {
	for len(p) > 0 {
		p = p[copy(p, parts[0]):]
		parts = parts[1:]
	}
}

// head is the header of a connection's frames. Its constant part is written once.
type head struct {
	buf *[headMax]byte
	tcp int // offset of the TCP header
	len int
}

// init writes the constant part.
func (h *head) init(f flow) {
	be, le := binary.BigEndian, binary.LittleEndian
	b := h.buf
	*b = [headMax]byte{}
	h.tcp = ipAt + ip4Len
	if f.v6 {
		h.tcp = ipAt + ip6Len
	}
	// VIRTIO_NET_HDR_F_NEEDS_CSUM also says that the payload is as it was sent.
	b[virtionet.Flags] = virtionet.NeedsCsum
	le.PutUint16(b[virtionet.CsumStart:], uint16(h.tcp-vnetLen))
	le.PutUint16(b[virtionet.CsumOffset:], 16)
	ip := b[ipAt:]
	if f.v6 {
		be.PutUint16(b[ipAt-2:], typeIP6)
		ip[0], ip[6], ip[7] = 6<<4, protTCP, 64
		ip[23], ip[39] = 1, 1
	} else {
		be.PutUint16(b[ipAt-2:], typeIP4)
		ip[0], ip[6], ip[8], ip[9] = 4<<4|5, 0x40, 64, protTCP // do not fragment
		copy(ip[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	}
	be.PutUint16(b[h.tcp:], f.host)
	be.PutUint16(b[h.tcp+2:], f.guest)
}

// set writes the rest, for n bytes of payload. A SYN has options.
func (h *head) set(flags byte, seq, ack uint32, window uint16, n int) {
	be := binary.BigEndian
	b := h.buf
	h.len = h.tcp + tcpLen
	if flags&flagSYN != 0 {
		h.len += synOptions
		copy(b[h.tcp+tcpLen:], []byte{2, 4, guestSegment >> 8, guestSegment & 0xff, 1, 3, 3, windowScale})
	}
	tcp := b[h.tcp:h.len]
	be.PutUint32(tcp[4:], seq)
	be.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13] = byte(len(tcp)/4<<4), flags
	be.PutUint16(tcp[14:], window)
	size := len(tcp) + n
	ip := b[ipAt:h.tcp]
	pseudo := uint32(protTCP + size)
	if len(ip) == ip6Len {
		be.PutUint16(ip[4:], uint16(size))
		pseudo += 1 + 1
	} else {
		be.PutUint16(ip[2:], uint16(ip4Len+size))
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], ^fold(sum(ip)))
		pseudo += 2 * (127<<8 + 1)
	}
	// The pseudo-header's sum; the receiver adds the rest if it needs the checksum.
	be.PutUint16(tcp[16:], fold(pseudo))
}

func (h *head) bytes() []byte { return h.buf[:h.len] }

func sum(p []byte) (s uint32) {
	for i := 0; i < len(p); i += 2 {
		s += uint32(p[i])<<8 | uint32(p[i+1])
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// before and after compare sequence numbers.
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return int32(a-b) > 0 }
