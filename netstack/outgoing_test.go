package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// TestOutgoing cuts connections from an address that the host has lost.
func TestOutgoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var there []net.Addr
		var failure error
		has := func(addrs ...string) {
			mu.Lock()
			defer mu.Unlock()
			there, failure = nil, nil
			for _, a := range addrs {
				ip, network, err := net.ParseCIDR(a)
				if err != nil {
					t.Fatal(err)
				}
				there = append(there, &net.IPNet{IP: ip, Mask: network.Mask})
			}
		}
		o := newOutgoing()
		o.addrs = func() ([]net.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			return there, failure
		}
		cut := map[string]bool{}
		add := func(name, local string) func() {
			return o.add(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local)), func() {
				mu.Lock()
				defer mu.Unlock()
				cut[name] = true
			})
		}
		expect := func(when string, names ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(cut) != len(names) {
				t.Errorf("%s: cut are %v, want %v", when, cut, names)
			}
			for _, n := range names {
				if !cut[n] {
					t.Errorf("%s: cut are %v, want %v", when, cut, names)
				}
			}
		}
		has("10.0.0.1/8", "2001:db8::1/64")
		add("four", "10.0.0.1:1000")
		six := add("six", "[2001:db8::1]:1000")
		add("own", "127.0.0.1:1000")
		ended := add("ended", "10.0.0.1:1001")
		time.Sleep(time.Minute)
		expect("at first")
		has("2001:db8::1/64") // for a moment
		time.Sleep(addrEvery)
		has("10.0.0.1/8", "2001:db8::1/64")
		time.Sleep(time.Minute)
		expect("after a moment")
		ended()
		has("10.0.0.2/8", "2001:db8::1/64")
		time.Sleep(2 * addrEvery)
		expect("another address", "four")
		has()
		mu.Lock()
		failure = errors.New("no addresses")
		mu.Unlock()
		time.Sleep(time.Minute)
		expect("not known", "four")
		six()
		time.Sleep(2 * addrEvery)
		synctest.Wait()
		o.mu.Lock()
		if o.looking {
			t.Error("it goes on looking when there is nothing to look for")
		}
		o.mu.Unlock()
		has("10.0.0.2/8")
		add("again", "10.0.0.2:1000")
		has()
		time.Sleep(3 * addrEvery)
		expect("at the end", "four", "again")
	})
}

// TestReset passes a failure on as a reset, both ways, and not as an end.
func TestReset(t *testing.T) { bothWays(t, testReset) }

func testReset(t *testing.T, start starter) {
	n, g := start(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	accept := func() *net.TCPConn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c.(*net.TCPConn)
	}
	c, err := g.dialTCP(n.Host(), port)
	if err != nil {
		t.Fatal(err)
	}
	s := accept()
	s.SetLinger(0)
	s.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("by the host: %v", err)
	}

	var wq waiter.Queue
	ep, terr := g.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if terr != nil {
		t.Fatal(terr)
	}
	ep.Connect(address(n.Host(), port)) // it continues in the background
	s = accept()
	defer s.Close()
	s.Write([]byte("x"))
	guest := gonet.NewTCPConn(&wq, ep)
	if _, err := io.ReadFull(guest, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ep.Abort()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("by the guest: %v", err)
	}
}

// TestSlowHost sends to servers that do not read for a while. One reads everything later, the
// other resets the connection.
func TestSlowHost(t *testing.T) { bothWays(t, testSlowHost) }

func testSlowHost(t *testing.T, start starter) {
	n, g := start(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := make([]byte, 32<<20)
	for i := range data {
		data[i] = byte(i>>16 ^ i)
	}
	connect := func() (*net.TCPConn, chan error) {
		t.Helper()
		c, err := g.dialTCP(n.Host(), l.Addr().(*net.TCPAddr).Port)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(time.Minute))
		sent := make(chan error, 1)
		c.SetWriteDeadline(time.Now().Add(time.Second / 4))
		wrote, _ := c.Write(data) // until the buffers are full
		if wrote == len(data) {
			t.Error("all went, though nobody reads")
		}
		c.SetWriteDeadline(time.Time{})
		go func() {
			_, err := c.Write(data[wrote:])
			if err == nil {
				err = c.CloseWrite()
			}
			sent <- err
		}()
		return s.(*net.TCPConn), sent
	}
	s, sent := connect()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes arrived, want %d: %v", len(got), len(data), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	s.Close()

	s, sent = connect()
	s.SetLinger(0)
	s.Close()
	if err := <-sent; err == nil {
		t.Error("the guest is not told of a reset")
	}
}
