package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/lsub/lsub/netstack/names"
)

// echo starts an echo server on an address of the host.
func echo(t testing.TB, network, addr string) (port int) {
	t.Helper()
	if network == "udp" {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { pc.Close() })
		go func() {
			buf := make([]byte, maxUDPPayload)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				pc.WriteTo(buf[:n], from)
			}
		}()
		return pc.LocalAddr().(*net.UDPAddr).Port
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

func (g *fakeGuest) dialTCP(to netip.Addr, port int) (*gonet.TCPConn, error) {
	return gonet.DialTCP(g.stack, address(to, port), ipv4.ProtocolNumber)
}

// sendUDP sends a datagram and returns the answer, or the error that came instead.
func (g *fakeGuest) sendUDP(t *testing.T, to netip.Addr, port int, text string) (string, error) {
	t.Helper()
	var wq waiter.Queue
	entry, happened := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	wq.EventRegister(&entry)
	ep, err := g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	if err := ep.Connect(address(to, port)); err != nil {
		t.Fatal(err)
	}
	if _, err := ep.Write(strings.NewReader(text), tcpip.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	<-happened
	var answer bytes.Buffer
	if _, err := ep.Read(&answer, tcpip.ReadOptions{}); err != nil {
		return "", errors.New(err.String())
	}
	return answer.String(), nil
}

// TestReach opens a port on the host's loopback, and tries all paths to it.
func TestReach(t *testing.T) { bothWays(t, testReach) }

func testReach(t *testing.T, start starter) {
	n, g := start(t, Config{})
	tcp, datagrams := echo(t, "tcp", "127.0.0.1:0"), echo(t, "udp", "127.0.0.1:0")
	c, err := g.dialTCP(n.Host(), tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if got, err := g.sendUDP(t, n.Host(), datagrams, "hello"); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	// No other address leads to the host's loopback.
	for _, to := range []string{n.Gateway().String(), n.Guest().Addr().Next().String(), "0.0.0.0", "127.0.0.1", "169.254.169.254", "255.255.255.255", "224.0.0.1"} {
		if _, err := n.target(address4(netip.MustParseAddr(to))); err == nil {
			t.Errorf("%s leads out of the VM", to)
		}
	}
	if _, err := g.dialTCP(n.Gateway(), tcp); err == nil {
		t.Error("a port of the gateway leads to the host's loopback")
	}
	if got, err := g.sendUDP(t, n.Gateway(), datagrams, "hello"); err == nil {
		t.Errorf("a port of the gateway leads to the host's loopback: %q", got)
	}
}

// TestReachIPv6 has a server that listens only on ::1.
func TestReachIPv6(t *testing.T) {
	n, g := startGuest(t, Config{})
	c, err := g.dialTCP(n.Host(), echo(t, "tcp", "[::1]:0"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestNoHostAccess closes the host's loopback. The name still resolves.
func TestNoHostAccess(t *testing.T) {
	n, g := startGuest(t, Config{NoHostAccess: true})
	if _, err := g.dialTCP(n.Host(), echo(t, "tcp", "127.0.0.1:0")); err == nil {
		t.Error("TCP reaches the host's loopback")
	}
	if got, err := g.sendUDP(t, n.Host(), echo(t, "udp", "127.0.0.1:0"), "hello"); err == nil {
		t.Errorf("UDP reaches the host's loopback: %q", got)
	}
}

// TestTooMany has the guest open more connections than the limit.
func TestTooMany(t *testing.T) { bothWays(t, testTooMany) }

func testTooMany(t *testing.T, start starter) {
	n, g := start(t, Config{})
	n.tcp = n.newLimiter("TCP connections", 3)
	port := echo(t, "tcp", "127.0.0.1:0")
	var conns []*gonet.TCPConn
	for range 3 {
		c, err := g.dialTCP(n.Host(), port)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if _, err := g.dialTCP(n.Host(), port); err == nil {
		t.Error("a connection too many")
	}
	conns[0].Write([]byte("x"))
	if _, err := io.ReadFull(conns[0], make([]byte, 1)); err != nil {
		t.Errorf("the others suffer: %v", err)
	}
	for _, c := range conns {
		c.Close()
	}
}

// TestSearch drops domains that would have a meaning on a command line.
func TestSearch(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"a.example b_c.Example", "a.example b_c.Example"}, {"", ""}, {"a,b c=d é x", "x"}, {"1 2 3 4 5 6 7", "1 2 3 4 5 6"},
		{strings.Repeat("x", 300) + " " + strings.Repeat("y", 300), strings.Repeat("x", 300)},
	} {
		n, err := New(Config{Names: names.Config{Search: strings.Fields(tc.in)}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(n.Search(), " "); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}

// TestNames asks for the network's own names, over both transports.
func TestNames(t *testing.T) {
	n, g := startGuest(t, Config{
		Lookup: func(name string) (netip.Addr, bool) { return netip.MustParseAddr("192.168.127.9"), name == "debian" },
		Reverse: func(addr netip.Addr) string {
			return map[netip.Addr]string{netip.MustParseAddr("192.168.127.9"): "debian", netip.MustParseAddr("192.0.2.1"): "not its own"}[addr]
		},
		Names: names.Config{Hosts: map[string][]netip.Addr{"db.example": {netip.MustParseAddr("192.0.2.5")}}},
	})
	to := address(n.Gateway(), 53)
	stream, err := g.dialTCP(n.Gateway(), 53)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	packets, err := gonet.DialUDP(g.stack, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for _, conn := range []*dns.Conn{{Conn: stream}, {Conn: packets}} {
		for name, want := range map[string]string{
			"debian.lsub.internal.": "192.168.127.9", "host.lsub.internal.": n.Host().String(), "db.example.": "192.0.2.5", "nobody.lsub.internal.": "",
		} {
			if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			m, err := conn.ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(m.Answer) == 1 {
				got = m.Answer[0].(*dns.A).A.String()
			}
			if got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		for addr, want := range map[string]string{
			"192.168.127.9": "debian.lsub.internal.", n.Host().String(): "host.lsub.internal.", "192.168.127.10": "",
		} {
			name, err := dns.ReverseAddr(addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, dns.TypePTR)); err != nil {
				t.Fatal(err)
			}
			m, err := conn.ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(m.Answer) == 1 {
				got = m.Answer[0].(*dns.PTR).Ptr
			}
			if got != want {
				t.Errorf("%s is called %q, want %q", addr, got, want)
			}
		}
	}
}

// TestManyFlows sends a datagram from more sockets than there may be flows: the newest are
// served, in place of the flows that have been silent for longest.
func TestManyFlows(t *testing.T) {
	n, g := startGuest(t, Config{})
	port := echo(t, "udp", "127.0.0.1:0")
	for i := range 3 * maxUDP {
		if got, err := g.sendUDP(t, n.Host(), port, "hello"); got != "hello" || err != nil {
			t.Fatalf("socket %d: %q, %v", i, got, err)
		}
	}
	n.flows.mu.Lock()
	defer n.flows.mu.Unlock()
	if open := len(n.flows.all); open > maxUDP {
		t.Errorf("%d flows are open, want at most %d", open, maxUDP)
	}
}
