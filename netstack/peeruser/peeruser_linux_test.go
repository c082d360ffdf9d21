package peeruser

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// connection makes a connection over the loopback and returns its ends.
func connection(t *testing.T, network, at string) (client net.Conn, from, to netip.AddrPort) {
	t.Helper()
	var server net.Addr
	if network == "tcp" {
		l, err := net.Listen(network, at)
		if err != nil {
			t.Skip(err) // no IPv6
		}
		t.Cleanup(func() { l.Close() })
		server = l.Addr()
	} else {
		c, err := net.ListenPacket(network, at)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { c.Close() })
		server = c.LocalAddr()
	}
	client, err := net.Dial(network, server.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, netip.MustParseAddrPort(client.LocalAddr().String()), netip.MustParseAddrPort(server.String())
}

func TestCheck(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(network+" "+at, func(t *testing.T) {
				client, from, to := connection(t, network, at)
				if err := Check(network, from, to); err != nil {
					t.Errorf("our own connection: %v", err)
				}
				client.Close()
				if err := Check(network, from, to); !errors.Is(err, ErrGone) {
					t.Errorf("a connection whose client has closed it: %v", err)
				}
			})
		}
	}
	// A socket that is not connected, for any address.
	c, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	from := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), netip.MustParseAddrPort(c.LocalAddr().String()).Port())
	if err := Check("udp", from, server4); err != nil {
		t.Errorf("a UDP socket for any address: %v", err)
	}
	// A socket for both families, which speaks IPv4.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	dual, err := dialDual(to)
	if err != nil {
		t.Skip(err) // no IPv6
	}
	defer unix.Close(dual)
	sa, err := unix.Getsockname(dual)
	if err != nil {
		t.Fatal(err)
	}
	from = netip.AddrPortFrom(netip.AddrFrom16(sa.(*unix.SockaddrInet6).Addr), uint16(sa.(*unix.SockaddrInet6).Port))
	if err := Check("tcp", from, to); err != nil {
		t.Errorf("IPv4 within IPv6: %v", err)
	}
}

// dialDual connects a socket of IPv6 to an address of IPv4.
func dialDual(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Connect(fd, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
}

// TestCheckOther: a socket of another user is refused, and the error names the user.
func TestCheckOther(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a socket of another user")
	}
	for _, network := range []string{"tcp", "udp"} {
		made := make(chan struct{})
		go func() {
			defer close(made)
			runtime.LockOSThread() // never unlocked: the thread ends with its user
			if err := unix.Setfsuid(65534); err != nil {
				t.Error(err)
			}
			_, from, to := connection(t, network, "127.0.0.1:0")
			if err := Check(network, from, to); err == nil || !strings.Contains(err.Error(), "user nobody") && !strings.Contains(err.Error(), "65534") {
				t.Errorf("%s of another user: %v", network, err)
			}
		}()
		<-made
	}
}
