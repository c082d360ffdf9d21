package peeruser

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

var (
	client4 = netip.MustParseAddrPort("127.0.0.1:40000")
	server4 = netip.MustParseAddrPort("127.0.0.1:8080")
	client6 = netip.MustParseAddrPort("[::1]:40000")
	server6 = netip.MustParseAddrPort("[::1]:8080")
)

func TestCheckElsewhere(t *testing.T) {
	far := netip.MustParseAddrPort("192.0.2.1:1")
	if err := Check("tcp", far, netip.MustParseAddrPort("192.0.2.2:2")); !errors.Is(err, ErrGone) {
		t.Errorf("a client of another machine: %v", err)
	}
}

// diagMessageOf is what the kernel answers of a socket.
func diagMessageOf(kind uint16, body []byte) []byte {
	e := binary.NativeEndian
	b := e.AppendUint32(nil, uint32(messageHeader+len(body)))
	b = e.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), body...)
}

func TestDiagAnswer(t *testing.T) {
	socket := func(uid, inode uint32) []byte {
		b := make([]byte, diagMessage)
		binary.NativeEndian.PutUint32(b[diagUID:], uid)
		binary.NativeEndian.PutUint32(b[diagInode:], inode)
		return diagMessageOf(msgByFamily, b)
	}
	if uid, err := diagAnswer(socket(1000, 7)); uid != 1000 || err != nil {
		t.Errorf("a socket of user 1000: %d, %v", uid, err)
	}
	// A socket that its program has closed counts as root's, whoever had it.
	if _, err := diagAnswer(socket(0, 0)); !errors.Is(err, ErrGone) {
		t.Errorf("a closed socket: %v", err)
	}
	notFound := binary.NativeEndian.AppendUint32(nil, ^uint32(1)) // -ENOENT
	if _, err := diagAnswer(diagMessageOf(msgError, notFound)); !errors.Is(err, ErrGone) {
		t.Errorf("no socket: %v", err)
	}
	for _, b := range [][]byte{nil, make([]byte, 20), diagMessageOf(msgByFamily, make([]byte, 10)), diagMessageOf(msgError, nil), socket(1, 1)[:40]} {
		if _, err := diagAnswer(b); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

// pcbRecord makes a record of macOS' list.
func pcbRecord(kind uint32, length int, put func(b []byte)) []byte {
	b := make([]byte, (length+7)&^7)
	binary.LittleEndian.PutUint32(b, uint32(length))
	binary.LittleEndian.PutUint32(b[4:], kind)
	put(b)
	return b
}

// pcbSocket makes the records of one socket.
func pcbSocket(local, foreign netip.AddrPort, uid uint32) []byte {
	b := pcbRecord(kindPCB, 104, func(b []byte) {
		binary.BigEndian.PutUint16(b[pcbForeignPort:], foreign.Port())
		binary.BigEndian.PutUint16(b[pcbLocalPort:], local.Port())
		b[pcbVersion] = 1
		at := pcbAddr4
		if local.Addr().Is6() {
			b[pcbVersion], at = 2, 0
		}
		copy(b[pcbForeign+at:], foreign.Addr().AsSlice())
		copy(b[pcbLocal+at:], local.Addr().AsSlice())
	})
	b = append(b, pcbRecord(kindSocket, 100, func(b []byte) { binary.LittleEndian.PutUint32(b[socketUID:], uid) })...)
	return append(b, pcbRecord(0x020, 196, func([]byte) {})...) // xtcpcb_n
}

func TestPCBOwner(t *testing.T) {
	list := pcbRecord(0, 24, func([]byte) {}) // xinpgen
	any4, any6 := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")
	list = append(list, pcbSocket(server4, any4, 1)...)
	list = append(list, pcbSocket(server4, client4, 2)...)
	list = append(list, pcbSocket(client4, netip.MustParseAddrPort("127.0.0.1:8081"), 3)...)
	list = append(list, pcbSocket(client4, server4, 501)...)
	list = append(list, pcbSocket(client6, server6, 502)...)
	list = append(list, pcbSocket(netip.MustParseAddrPort("[::]:50000"), any6, 503)...)
	for _, c := range []struct {
		client, server netip.AddrPort
		uid            uint32
	}{
		{client4, server4, 501}, {client6, server6, 502},
		{netip.MustParseAddrPort("[::1]:50000"), server6, 503}, // UDP, not connected
	} {
		if uid, err := pcbOwner(list, c.client, c.server); uid != c.uid || err != nil {
			t.Errorf("%v: user %d, %v; want %d", c.client, uid, err, c.uid)
		}
	}
	if _, err := pcbOwner(list, netip.MustParseAddrPort("127.0.0.1:9"), server4); !errors.Is(err, ErrGone) {
		t.Errorf("a socket that is not there: %v", err)
	}
}

func TestTablePID(t *testing.T) {
	row := func(f tableForm, local, foreign netip.AddrPort, pid uint32) []byte {
		b := make([]byte, f.length)
		copy(b[f.local:], local.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[f.localPort:], local.Port())
		if f.foreign >= 0 {
			copy(b[f.foreign:], foreign.Addr().AsSlice())
			binary.BigEndian.PutUint16(b[f.foreignPort:], foreign.Port())
		}
		binary.LittleEndian.PutUint32(b[f.pid:], pid)
		return b
	}
	for _, c := range []struct {
		network        string
		client, server netip.AddrPort
	}{{"tcp", client4, server4}, {"tcp", client6, server6}, {"udp", client4, server4}, {"udp", client6, server6}} {
		f := formOf(c.network, c.client.Addr().Is6())
		table := binary.LittleEndian.AppendUint32(nil, 4)
		table = append(table, row(f, c.server, c.client, 1)...)
		table = append(table, row(f, netip.AddrPortFrom(c.client.Addr(), 7), c.server, 2)...)
		table = append(table, row(f, c.client, c.server, 0)...) // TIME_WAIT has no process
		table = append(table, row(f, c.client, c.server, 42)...)
		if pid, err := tablePID(table, c.network, c.client, c.server); pid != 42 || err != nil {
			t.Errorf("%s %v: process %d, %v", c.network, c.client, pid, err)
		}
		if _, err := tablePID(table[:len(table)-f.length], c.network, c.client, c.server); !errors.Is(err, ErrGone) {
			t.Errorf("%s %v of a table without it: %v", c.network, c.client, err)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add(diagMessageOf(msgByFamily, make([]byte, diagMessage)))
	f.Add(append(pcbRecord(0, 24, func([]byte) {}), pcbSocket(client4, server4, 1)...))
	f.Add([]byte{5, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		diagAnswer(b)
		pcbOwner(b, client4, server4)
		tablePID(b, "tcp", client6, server6)
		tablePID(b, "udp", client4, server4)
	})
}

// TestListenerPID has listeners beside connections of the same port, and one without a process.
func TestListenerPID(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:8080")
	row := func(foreignPort byte, pid uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 2)
		b = append(b, 127, 0, 0, 1, 0x1f, 0x90, 0, 0) // 127.0.0.1:8080
		b = append(b, 0, 0, 0, 0, 0, foreignPort, 0, 0)
		return binary.LittleEndian.AppendUint32(b, pid)
	}
	table := binary.LittleEndian.AppendUint32(nil, 3)
	table = append(append(append(table, row(1, 7)...), row(0, 0)...), row(0, 42)...)
	same := func(has netip.AddrPort) bool { return has == at }
	if pid, ok := listenerPID(table, "tcp", false, same); pid != 42 || !ok {
		t.Errorf("found process %d (%v), want 42", pid, ok)
	}
	if pid, ok := listenerPID(table[:len(table)-24], "tcp", false, same); ok {
		t.Errorf("without the listener, found process %d", pid)
	}
	if pid, ok := listenerPID(nil, "tcp", false, same); ok {
		t.Errorf("in no table, found process %d", pid)
	}
}
