package listeners

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDump asks the kernel that runs the test for the test's own sockets.
func TestDump(t *testing.T) {
	d, err := openDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, _, err := d.dump(); errors.Is(err, unix.ENOENT) {
		t.Skip("this kernel has no sock_diag for inet")
	}
	tcp4, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp4.Close()
	udp4, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp4.Close()
	tcp, udp, err := d.dump()
	if err != nil {
		t.Fatal(err)
	}
	has := func(list []socket, state byte, addr net.Addr) bool {
		want := netip.MustParseAddrPort(addr.String())
		return slices.ContainsFunc(list, func(s socket) bool {
			return s.addr.Port() == want.Port() && s.addr.Addr() == want.Addr() && s.state == state && s.inode != 0
		})
	}
	if !has(tcp, stateListen, tcp4.Addr()) {
		t.Errorf("no %v in %+v", tcp4.Addr(), tcp)
	}
	if !has(udp, stateClose, udp4.LocalAddr()) {
		t.Errorf("no %v in %+v", udp4.LocalAddr(), udp)
	}
	client, err := net.Dial("tcp4", tcp4.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	linked, err := d.ask(familyIPv4, protoTCP, clientStates)
	if err != nil || !slices.ContainsFunc(linked, func(s socket) bool {
		return s.addr.String() == client.LocalAddr().String() && s.peer.String() == tcp4.Addr().String()
	}) {
		t.Errorf("no connection from %v to %v in %+v, %v", client.LocalAddr(), tcp4.Addr(), linked, err)
	}
	gone := tcp4.Addr()
	tcp4.Close()
	if tcp, _, err = d.dump(); err != nil || has(tcp, stateListen, gone) {
		t.Errorf("%v is listed after its end: %v", gone, err)
	}
	if tcp6, err := net.Listen("tcp6", "[::]:0"); err == nil {
		defer tcp6.Close()
		if tcp, _, err = d.dump(); err != nil || !has(tcp, stateListen, tcp6.Addr()) {
			t.Errorf("no %v in %+v, %v", tcp6.Addr(), tcp, err)
		}
	}
}
