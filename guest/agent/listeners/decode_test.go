package listeners

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"
)

// message makes a netlink message as the kernel does.
func message(kind, flags uint16, body []byte) []byte {
	e := binary.NativeEndian
	b := e.AppendUint32(nil, uint32(messageHeader+len(body)))
	b = e.AppendUint16(b, kind)
	b = e.AppendUint16(b, flags)
	b = append(b, make([]byte, 8)...)
	b = append(b, body...)
	return append(b, make([]byte, align(len(body))-len(body))...)
}

// diagBody makes an inet_diag_msg with the attributes that the kernel adds.
func diagBody(family, state byte, addr netip.Addr, port uint16, inode uint32, v6only bool, group uint64) []byte {
	e := binary.NativeEndian
	b := make([]byte, diagMessage)
	b[0], b[1] = family, state
	binary.BigEndian.PutUint16(b[4:], port)
	copy(b[8:24], addr.AsSlice())
	if state != stateListen {
		binary.BigEndian.PutUint16(b[6:], 61000)
		copy(b[24:40], addr.AsSlice())
	}
	e.PutUint32(b[68:], inode)
	if family == familyIPv6 {
		only := byte(0)
		if v6only {
			only = 1
		}
		b = append(b, 5, 0, attrV6Only, 0, only, 0, 0, 0)
		if e.Uint16([]byte{1, 0}) != 1 {
			b[len(b)-8], b[len(b)-7], b[len(b)-6], b[len(b)-5] = 0, 5, 0, attrV6Only
		}
	}
	b = e.AppendUint16(b, 12)
	b = e.AppendUint16(b, attrCgroup)
	return e.AppendUint64(b, group)
}

func TestDecode(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::")
	done := message(msgDone, 0, []byte{0, 0, 0, 0})
	b := slices.Concat(
		message(msgByFamily, 2, diagBody(familyIPv4, stateListen, v4, 80, 7, false, 4711)),
		message(msgByFamily, 2, diagBody(familyIPv6, stateListen, v6, 443, 8, true, 1<<40)),
		message(msgByFamily, 2, diagBody(familyIPv6, stateClose, netip.MustParseAddr("::ffff:10.1.2.3"), 53, 9, false, 0)),
	)
	a, err := decode(b)
	want := []socket{
		{familyIPv4, stateListen, netip.MustParseAddrPort("127.0.0.1:80"), 7, false, 4711, netip.MustParseAddrPort("0.0.0.0:0")},
		{familyIPv6, stateListen, netip.MustParseAddrPort("[::]:443"), 8, true, 1 << 40, netip.MustParseAddrPort("[::]:0")},
		{familyIPv6, stateClose, netip.MustParseAddrPort("10.1.2.3:53"), 9, false, 0, netip.MustParseAddrPort("10.1.2.3:61000")},
	}
	if err != nil || a.done || a.changed || !reflect.DeepEqual(a.sockets, want) {
		t.Errorf("%+v, %v; want %+v", a, err, want)
	}
	if a, err := decode(append(b, done...)); err != nil || !a.done || len(a.sockets) != 3 {
		t.Errorf("with the end: %+v, %v", a, err)
	}
	if a, err := decode(message(msgDone, flagDumpBroken, []byte{0, 0, 0, 0})); err != nil || !a.changed || !a.done {
		t.Errorf("changed meanwhile: %+v, %v", a, err)
	}
	errno := binary.NativeEndian.AppendUint32(nil, ^uint32(syscall.ENOENT)+1)
	if _, err := decode(message(msgError, 0, errno)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("error: %v", err)
	}
	for name, bad := range map[string][]byte{
		"cut header":     b[:10],
		"cut body":       b[:messageHeader+20],
		"short socket":   message(msgByFamily, 0, make([]byte, diagMessage-1)),
		"unknown family": message(msgByFamily, 0, make([]byte, diagMessage)),
		"short message":  binary.NativeEndian.AppendUint32(nil, 3),
		"error of none":  message(msgError, 0, nil),
		"long attribute": message(msgByFamily, 0, append(diagBody(familyIPv4, 10, v4, 1, 1, false, 1), 0xff, 0xff, 1, 0)),
	} {
		if a, err := decode(bad); err == nil {
			t.Errorf("%s: taken as %+v", name, a)
		}
	}
}

// FuzzDecode must not panic, nor take a long way: every message moves on.
func FuzzDecode(f *testing.F) {
	f.Add(message(msgByFamily, 2, diagBody(familyIPv6, stateListen, netip.IPv6Loopback(), 80, 7, true, 4711)))
	f.Add(message(msgDone, flagDumpBroken, []byte{0, 0, 0, 0}))
	f.Add(message(msgError, 0, []byte{0xfe, 0xff, 0xff, 0xff}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decode(b)
		if err == nil && len(a.sockets) > len(b)/(messageHeader+diagMessage) {
			t.Errorf("%d sockets in %d bytes", len(a.sockets), len(b))
		}
	})
}

func TestDistroOf(t *testing.T) {
	for group, want := range map[string]string{
		"/distros/debian-1/inside/system.slice/apache2.service": "debian-1",
		"/distros/debian-1": "debian-1",
		"distros/x/.lsub/":  "x",
		"/distros":          "",
		"/":                 "",
		"":                  "",
		"/agent":            "",
		"/distros2/x":       "",
	} {
		if got := distroOf(group); got != want {
			t.Errorf("%q: %q, want %q", group, got, want)
		}
	}
}

func TestGroupInside(t *testing.T) {
	for group, want := range map[string]string{
		"/distros/debian-1/inside/system.slice/apache2.service": "system.slice/apache2.service",
		"/distros/debian-1/inside/.lsub":                        ".lsub",
		"/distros/debian-1/inside":                              "",
		"":                                                      "",
	} {
		if got := groupInside(group); got != want {
			t.Errorf("%q: %q, want %q", group, got, want)
		}
	}
}

func TestProcessFiles(t *testing.T) {
	for link, want := range map[string]uint32{"socket:[4711]": 4711, "pipe:[3]": 0, "/dev/null": 0, "socket:[x]": 0, "socket:[99999999999]": 0} {
		if got := socketInode(link); got != want {
			t.Errorf("%q: %d, want %d", link, got, want)
		}
	}
	name, pid := parseStatus("Name:\tapache2\nUmask:\t0022\nPid:\t812\nNSpid:\t812\t97\t3\n")
	if name != "apache2" || pid != 97 {
		t.Errorf("%q %d", name, pid)
	}
}

func TestString(t *testing.T) {
	for want, l := range map[string]Listener{
		"tcp 80 (apache2)":    {Network: TCP, Addr: netip.MustParseAddrPort("[::]:80"), Process: "apache2"},
		"udp 127.0.0.53:53":   {Network: UDP, Addr: netip.MustParseAddrPort("127.0.0.53:53")},
		"tcp [::1]:22 (sshd)": {Network: TCP, Addr: netip.MustParseAddrPort("[::1]:22"), Process: "sshd"},
		"tcp 5432 (postgres)": {Network: TCP, Addr: netip.MustParseAddrPort("0.0.0.0:5432"), Process: "postgres"},
	} {
		if got := l.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestMerge has sockets of SO_REUSEPORT, of several distros and out of order.
func TestMerge(t *testing.T) {
	at := func(distro, network, addr string, inode uint32) Listener {
		return Listener{Network: network, Addr: netip.MustParseAddrPort(addr), Distro: distro, inode: inode}
	}
	got := merge([]Listener{
		at("b", TCP, "0.0.0.0:80", 9), at("a", TCP, "0.0.0.0:81", 5), at("a", TCP, "0.0.0.0:80", 4),
		at("a", TCP, "0.0.0.0:80", 3), at("a", UDP, "0.0.0.0:80", 2), at("a", TCP, "[::]:80", 1),
	})
	want := []Listener{
		at("a", TCP, "0.0.0.0:80", 3), at("a", TCP, "[::]:80", 1), at("a", UDP, "0.0.0.0:80", 2),
		at("a", TCP, "0.0.0.0:81", 5), at("b", TCP, "0.0.0.0:80", 9),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
