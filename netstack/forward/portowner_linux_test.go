package forward

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestProgram finds this test as the owner of its own ports.
func TestProgram(t *testing.T) {
	want := fmt.Sprintf("(process %d)", os.Getpid())
	open := func(network, at string) netip.AddrPort {
		t.Helper()
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, at)
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { c.Close() })
			return netip.MustParseAddrPort(c.LocalAddr().String())
		}
		l, err := net.Listen(network, at)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { l.Close() })
		return netip.MustParseAddrPort(l.Addr().String())
	}
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	for _, c := range []struct {
		network, at string
		asked       netip.Addr
	}{
		{"tcp4", "127.0.0.1:0", v4}, {"tcp4", "0.0.0.0:0", v4}, {"tcp6", "[::1]:0", v6}, {"tcp", "[::]:0", v4}, {"tcp", "[::]:0", v6},
		{"udp4", "127.0.0.1:0", v4}, {"udp6", "[::]:0", v6}, {"tcp4", "127.0.0.1:0", netip.IPv4Unspecified()},
	} {
		port := open(c.network, c.at).Port()
		if got := Program(c.network[:3], netip.AddrPortFrom(c.asked, port)); !strings.HasSuffix(got, want) {
			t.Errorf("%s %s, asked for %v: %q, want %s", c.network, c.at, c.asked, got, want)
		}
	}
	// A listener that blocks nobody.
	port := open("tcp4", "127.0.0.1:0").Port()
	for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 2}), v6} {
		if got := Program(TCP, netip.AddrPortFrom(a, port)); got != "" {
			t.Errorf("%v is free, and had by %s", a, got)
		}
	}
	if got := Program(UDP, netip.AddrPortFrom(v4, port)); got != "" {
		t.Errorf("of another network: %s", got)
	}
}

// TestProgramName has a process with control characters in its name.
func TestProgramName(t *testing.T) {
	file := fmt.Sprintf("/proc/%d/comm", os.Getpid())
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte("a\x1b[2Jb"), 0)
	}
	if err != nil {
		t.Skip(err)
	}
	defer os.WriteFile(file, bytes.TrimSpace(before), 0)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := Program(TCP, netip.MustParseAddrPort(l.Addr().String())); !strings.HasPrefix(got, "a?[2Jb (") {
		t.Errorf("%q", got)
	}
}

func TestSocketAt(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1
nonsense
   1: 0100007F:XXXX 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4712 1
   2: 01:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4713 1
   3: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4714 1
`
	if inode, uid := socketAt(strings.NewReader(table), TCP, netip.MustParseAddrPort("127.0.0.1:80")); inode != "4714" || uid != "33" {
		t.Errorf("inode %q of user %q", inode, uid)
	}
}
