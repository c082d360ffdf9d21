package forward

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// TestProgram finds this test's own listener.
func TestProgram(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		t.Skip("Wine's table has no processes")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	want := fmt.Sprintf(".exe (process %d)", os.Getpid())
	for _, addr := range []netip.AddrPort{at, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())} {
		if got := Program(TCP, addr); !strings.HasSuffix(got, want) {
			t.Errorf("%v belongs to %q, want this program, %q", addr, got, want)
		}
	}
	l.Close()
	if got := Program(TCP, at); got != "" {
		t.Errorf("a closed listener belongs to %q", got)
	}
}
