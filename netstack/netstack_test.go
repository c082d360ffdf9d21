package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/sirupsen/logrus"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/lsub/lsub/virtionet"
)

func address(a netip.Addr, port int) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(a.As4()), Port: uint16(port)}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ subnet, gateway, guest, host string }{
		{"", "192.168.127.1", "192.168.127.2/24", "192.168.127.254"},
		{"10.9.8.0/29", "10.9.8.1", "10.9.8.2/29", "10.9.8.6"},
		{"10.0.0.0/8", "10.0.0.1", "10.0.0.2/8", "10.255.255.254"},
		{"172.20.5.77/20", "172.20.0.1", "172.20.0.2/20", "172.20.15.254"},
	} {
		var cfg Config
		if c.subnet != "" {
			cfg.Subnet = netip.MustParsePrefix(c.subnet)
		}
		n, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(n.Gateway(), " ", n.Guest(), " ", n.Host())
		if want := c.gateway + " " + c.guest + " " + c.host; got != want {
			t.Errorf("%q: %s, want %s", c.subnet, got, want)
		}
	}
	for _, cfg := range []Config{
		{Subnet: netip.MustParsePrefix("fd00::/64")}, {Subnet: netip.MustParsePrefix("10.0.0.0/30")}, {MTU: 576}, {MTU: 65536},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// TestPing goes through ARP and ICMP. The gateway and the host answer; another machine does
// when it answers the host.
func TestPing(t *testing.T) { bothWays(t, testPing) }

func testPing(t *testing.T, start starter) {
	n, g := start(t, Config{})
	machine, silent := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	n.ping = func(to netip.Addr, sequence uint16, data []byte) error {
		if to != machine || sequence != 7 || string(data) != "ping" {
			return fmt.Errorf("%v does not answer %d, %q", to, sequence, data)
		}
		return nil
	}
	// The one who is silent is asked first: an answer would be read first.
	for _, to := range []netip.Addr{silent, n.Guest().Addr().Next().Next().Next(), n.Gateway(), silent, n.Host(), machine} {
		var wq waiter.Queue
		entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
		wq.EventRegister(&entry)
		ep, err := g.stack.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &wq)
		if err != nil {
			t.Fatal(err)
		}
		defer ep.Close()
		echo := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+4))
		echo.SetType(header.ICMPv4Echo)
		echo.SetSequence(7)
		copy(echo[header.ICMPv4MinimumSize:], "ping")
		at := address(to, 0)
		if _, err := ep.Write(bytes.NewReader(echo), tcpip.WriteOptions{To: &at}); err != nil {
			t.Fatal(err)
		}
		if to == silent || to == n.Guest().Addr().Next().Next().Next() {
			select {
			case <-readable:
				t.Errorf("%v answers", to)
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		<-readable
		var answer bytes.Buffer
		if _, err := ep.Read(&answer, tcpip.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := header.ICMPv4(answer.Bytes()); got.Type() != header.ICMPv4EchoReply || got.Sequence() != 7 || !bytes.HasSuffix(got, []byte("ping")) {
			t.Errorf("%v: answer %x", to, answer.Bytes())
		}
	}
}

// TestDNS asks only questions that need no resolver of the host, because its answers are
// unpredictable.
func TestDNS(t *testing.T) { bothWays(t, testDNS) }

func testDNS(t *testing.T, start starter) {
	n, g := start(t, Config{})
	ask := func(t *testing.T, name string, kind uint16) *dns.Msg {
		t.Helper()
		to := address(n.Gateway(), 53)
		c, err := gonet.DialUDP(g.stack, nil, &to, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conn := &dns.Conn{Conn: c}
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, kind)); err != nil {
			t.Fatal(err)
		}
		m, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, want := range map[string]string{
		"host.lsub.internal.":    n.Host().String(),
		"gateway.lsub.internal.": n.Gateway().String(),
	} {
		m := ask(t, name, dns.TypeA)
		if len(m.Answer) == 0 || !strings.HasSuffix(m.Answer[0].String(), want) {
			t.Errorf("%s: %v, want %s", name, m.Answer, want)
		}
	}
	// Unreachable addresses are not offered, and that answer comes at once.
	if m := ask(t, "host.lsub.internal.", dns.TypeAAAA); len(m.Answer) != 0 || m.Rcode != dns.RcodeSuccess {
		t.Errorf("IPv6: %v, %s", m.Answer, dns.RcodeToString[m.Rcode])
	}
	if m := ask(t, "nobody.lsub.internal.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("an unknown name: %s", dns.RcodeToString[m.Rcode])
	}
}

// TestEgress downloads from a server on the host's loopback, with small and
// with large frames.
func TestEgress(t *testing.T) { bothWays(t, testEgress) }

func testEgress(t *testing.T, start starter) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		io.Copy(sum, r.Body)
		w.Header().Set("Sum", fmt.Sprintf("%x", sum.Sum(nil)))
		w.Write(data)
	}))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	for _, mtu := range []int{1500, DefaultMTU} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			n, g := start(t, Config{MTU: mtu})
			client := &http.Client{Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return gonet.DialContextTCP(ctx, g.stack, address(n.Host(), port), ipv4.ProtocolNumber)
				},
				DisableKeepAlives: true,
			}}
			res, err := client.Post("http://host", "text/plain", bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, want %d: %v", len(got), len(data), err)
			}
			if want := fmt.Sprintf("%x", sha256.Sum256(data)); res.Header.Get("Sum") != want {
				t.Error("the upload arrived damaged")
			}
		})
	}
}

// TestRefused connects to a port of the host where nobody listens.
func TestRefused(t *testing.T) {
	n, g := startGuest(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	if _, err := gonet.DialTCP(g.stack, address(n.Host(), port), ipv4.ProtocolNumber); err == nil {
		t.Error("a connection to nobody")
	}
}

// TestHostileFrames sends lengths that would crash or starve the switch.
func TestHostileFrames(t *testing.T) {
	n, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []uint32{0, 1, 13, 65520 + 19, 1 << 31, 1<<32 - 1} {
		host, card := net.Pipe()
		served := make(chan error)
		go func() { served <- n.Serve(t.Context(), host, virtionet.Stream) }()
		b := binary.BigEndian.AppendUint32(nil, 60) // a valid one first
		b = append(b, make([]byte, 60)...)
		b = binary.BigEndian.AppendUint32(b, size)
		card.Write(b[:2])
		card.Write(b[2:]) // the split is inside a length
		if err := <-served; err == nil || !strings.Contains(err.Error(), "the guest sent a frame") {
			t.Errorf("size %d: %v", size, err)
		}
		card.Close()
	}
}

func TestServeEnds(t *testing.T) {
	n, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	host, card := net.Pipe()
	served := make(chan error)
	go func() { served <- n.Serve(ctx, host, virtionet.Stream) }()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("after its context: %v", err)
	}
	if _, err := card.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is still open: %v", err)
	}
	host, card = net.Pipe()
	go func() { served <- n.Serve(t.Context(), host, virtionet.Stream) }()
	card.Close()
	if err := <-served; err != nil {
		t.Errorf("after the card's end: %v", err)
	}
}

func TestDatagramGuard(t *testing.T) {
	frames := &scripted{frames: [][]byte{{}, make([]byte, 13), make([]byte, 100), make([]byte, 2000), make([]byte, 14)}}
	g := &datagramGuard{writeGuard: writeGuard{frames}, max: 1518}
	buf := make([]byte, 4096)
	for _, want := range []int{100, 14} {
		if n, err := g.Read(buf); n != want || err != nil {
			t.Errorf("read %d, %v, want %d", n, err, want)
		}
	}
	if _, err := g.Read(buf); err != os.ErrClosed {
		t.Error(err)
	}
}

// scripted is a connection that returns given datagrams.
type scripted struct {
	net.Conn
	frames [][]byte
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.frames) == 0 {
		return 0, os.ErrClosed
	}
	n := copy(p, s.frames[0])
	s.frames = s.frames[1:]
	return n, nil
}

func TestLogBridge(t *testing.T) {
	var b bytes.Buffer
	bridgeLogs(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})))
	logrus.WithTime(time.Unix(0, 0)).Error("it broke")
	if !strings.Contains(b.String(), `level=DEBUG msg="netstack: it broke"`) {
		t.Error(b.String())
	}
	bridgeLogs(slog.New(slog.DiscardHandler))
}

func FuzzFrameGuard(f *testing.F) {
	f.Add([]byte{0, 0, 0, 14, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, 3)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		step = max(1, step%64)
		var chunks [][]byte
		for rest := stream; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			chunks = append(chunks, rest[:min(step, len(rest))])
		}
		got, err := io.ReadAll(&frameGuard{writeGuard: writeGuard{&scripted{frames: chunks}}, max: 1518})
		// The accepted bytes are frames of allowed lengths, and a part of one.
		for b := got; len(b) >= 4; {
			size := int(binary.BigEndian.Uint32(b))
			if size < minFrame || size > 1518 {
				t.Fatalf("a frame of %d bytes came through: %v", size, err)
			}
			b = b[min(len(b), 4+size):]
		}
	})
}
