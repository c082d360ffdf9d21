package tcredirect_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/tcredirect/tcredirecttest"
)

type rawConn = syscall.RawConn

const (
	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagPSH = 8
	flagACK = 16
)

// peer is the supervisor's end of a TCP connection.
type peer struct {
	*network
	addr         netip.Addr // of both ends
	source, dest uint16
	seq, ack     uint32
	whole        bool // checksums are made here, not left to the card
}

// segment is one of the other end.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    byte
	data     []byte
}

// send sends a segment.
func (p *peer) send(flags byte, data []byte) {
	p.t.Helper()
	frame := p.frame(flags, data)
	header := make([]byte, tcredirecttest.HeaderLen)
	if !p.whole {
		at, tcp := places(frame)
		header[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
		binary.LittleEndian.PutUint16(header[6:], uint16(tcp))
		binary.LittleEndian.PutUint16(header[8:], 16)
		sum := fold(pseudo(frame, at, tcp))
		binary.BigEndian.PutUint16(frame[tcp+16:], sum)
	}
	p.Send(header, frame)
}

// frame is an Ethernet frame with whole checksums.
func (p *peer) frame(flags byte, data []byte) []byte {
	f := make([]byte, 14, 14+40+20+len(data))
	size := 20 + len(data)
	addr := p.addr.AsSlice()
	if p.addr.Is4() {
		f[12], f[13] = 8, 0
		ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+size))
		f = append(f, ip...)
	} else {
		f[12], f[13] = 0x86, 0xdd
		ip := []byte{0x60, 0, 0, 0, 0, 0, 6, 64}
		binary.BigEndian.PutUint16(ip[4:], uint16(size))
		f = append(f, ip...)
	}
	f = append(append(f, addr...), addr...)
	f = binary.BigEndian.AppendUint16(f, p.source)
	f = binary.BigEndian.AppendUint16(f, p.dest)
	f = binary.BigEndian.AppendUint32(f, p.seq)
	f = binary.BigEndian.AppendUint32(f, p.ack)
	f = append(f, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	return fixSums(append(f, data...))
}

// places says where addresses and the TCP header are.
func places(f []byte) (addrs, tcp int) {
	if f[12] == 8 {
		return 26, 34
	}
	return 22, 54
}

// fixSums makes the checksums of a frame right, as far as there is one.
func fixSums(f []byte) []byte {
	addrs, tcp := places(f)
	if len(f) < tcp+20 {
		return f
	}
	if tcp == 34 {
		f[24], f[25] = 0, 0
		binary.BigEndian.PutUint16(f[24:], ^fold(sum(0, f[14:34])))
	}
	f[tcp+16], f[tcp+17] = 0, 0
	binary.BigEndian.PutUint16(f[tcp+16:], ^fold(sum(pseudo(f, addrs, tcp), f[tcp:])))
	return f
}

func pseudo(f []byte, addrs, tcp int) uint32 {
	return sum(6+uint32(len(f)-tcp), f[addrs:tcp])
}

func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// parse reads a frame with its header.
func parse(f []byte) (segment, error) {
	var s segment
	if len(f) < tcredirecttest.HeaderLen+54 {
		return s, errors.New("a short frame")
	}
	f = f[tcredirecttest.HeaderLen:]
	for _, b := range f[:12] {
		if b != 0 {
			return s, errors.New("not from lo")
		}
	}
	addrs, tcp := places(f)
	if len(f) < tcp+20 {
		return s, errors.New("a short segment")
	}
	size := (tcp - addrs) / 2
	from, _ := netip.AddrFromSlice(f[addrs : addrs+size])
	to, _ := netip.AddrFromSlice(f[addrs+size : tcp])
	h := f[tcp:]
	s.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(h))
	s.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(h[2:]))
	s.seq, s.ack = binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	s.flags = h[13]
	if int(h[12]>>4)*4 > len(h) {
		return s, errors.New("a header without an end")
	}
	s.data = h[h[12]>>4*4:]
	return s, nil
}

// edit changes bytes of a frame.
func edit(f []byte, at int, b ...byte) []byte {
	copy(f[at:], b)
	return f
}

// mac is the card's address.
func (n *network) mac() []byte {
	var mac []byte
	n.Do(func() {
		if c, err := net.InterfaceByName(tcredirecttest.Card); err == nil {
			mac = c.HardwareAddr
		}
	})
	return mac
}

// address gives the card an address.
func (n *network) address(addr string) {
	n.t.Helper()
	var err error
	n.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		var ifr *unix.Ifreq
		if ifr, err = unix.NewIfreq(tcredirecttest.Card); err != nil {
			return
		}
		if err = ifr.SetInet4Addr(net.ParseIP(addr).To4()); err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCSIFADDR, ifr)
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func arpRequest(from, to string) []byte {
	f := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1}
	f = append(f, net.ParseIP(from).To4()...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	return append(f, net.ParseIP(to).To4()...)
}

// received is how many packets have come to the namespace's IP, by any way.
func (n *network) received() int {
	n.t.Helper()
	return n.count("snmp", `(?m)^Ip: \d+ \d+ (\d+)`) + n.count("snmp6", `(?m)^Ip6InReceives\s+(\d+)`)
}

func (n *network) count(file, pattern string) int {
	n.t.Helper()
	var b []byte
	var err error
	n.Do(func() { b, err = os.ReadFile("/proc/thread-self/net/" + file) })
	if err != nil {
		n.t.Fatal(err)
	}
	m := regexp.MustCompile(pattern).FindSubmatch(b)
	if m == nil {
		n.t.Fatalf("%s has no such figure: %s", file, b)
	}
	count, err := strconv.Atoi(string(m[1]))
	if err != nil {
		n.t.Fatal(err)
	}
	return count
}
