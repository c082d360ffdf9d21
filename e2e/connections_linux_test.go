package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/netstack/guesttcp"
)

// echoServer echoes connections and packets on a port, until its input ends. A connection is
// echoed until its end. As the first byte, "R" is answered by a reset, "H" by a word after
// the client's end, "P" by the client's address.
const echoServer = `
import socket as S, struct, sys, threading
t = S.socket(S.AF_INET6, S.SOCK_STREAM); t.setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, 1); t.bind(("::", %[1]d)); t.listen(4096)
u = S.socket(S.AF_INET6, S.SOCK_DGRAM); u.bind(("::", %[1]d))
def serve(c):
	try:
		b = c.recv(65536)
		if b[:1] == b"R":
			c.setsockopt(S.SOL_SOCKET, S.SO_LINGER, struct.pack("ii", 1, 0)); c.close(); return
		if b[:1] == b"P":
			c.sendall(("%%s %%d" %% c.getpeername()[:2]).encode()); c.close(); return
		if b[:1] == b"H":
			while c.recv(65536): pass
			c.sendall(b"after the end"); c.close(); return
		while b: c.sendall(b); b = c.recv(65536)
	except OSError as e: print("failed", e.errno)
	c.close()
def tcp():
	while True:
		c, _ = t.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
def udp():
	while True:
		b, a = u.recvfrom(65536); u.sendto(b, a)
threading.stack_size(64*1024)
threading.Thread(target=tcp, daemon=True).start(); threading.Thread(target=udp, daemon=True).start()
print("ready"); sys.stdin.read()
`

// TestConnections tests ordinary network traffic through forwarded ports.
func TestConnections(t *testing.T) {
	h, distro := withPython(t)
	s := h.python(t, distro, fmt.Sprintf(echoServer, 18100))
	s.line()
	for _, at := range both(18100) {
		within(t, quick, at+" opens", func() bool { return answers(at) })
	}
	t.Run("packets", func(t *testing.T) {
		buf := make([]byte, 1<<16)
		for _, at := range both(18100) {
			c := dial(t, "udp", at) // connected: it receives answers only from this port
			for _, size := range []int{1, 1472, 9000, 65000} {
				c.Write(bytes.Repeat([]byte{7}, size))
				c.SetReadDeadline(time.Now().Add(time.Minute))
				if n, err := c.Read(buf); n != size || err != nil {
					t.Errorf("%s: %d bytes of %d, %v", at, n, size, err)
				}
			}
		}
	})
	connections(t, s, both(18100), directly)
	t.Run("1 GiB each way at once", func(t *testing.T) { muchBothWays(t, dial(t, "tcp", both(18100)[0]), 1<<30) })
	t.Run("1000 at once", func(t *testing.T) { manyConnections(t, both(18100), 1000) })
}

// way is the path of a connection to its server.
type way string

const (
	directly   way = "directly" // see package netstack/guesttcp
	byTheAgent way = "by the agent"
)

// wayOf asks an echo server where a connection came from.
func wayOf(t *testing.T, at string) (from netip.Addr, w way) {
	t.Helper()
	c := dial(t, "tcp", at)
	io.WriteString(c, "P")
	b, err := io.ReadAll(c)
	addr, number, _ := strings.Cut(string(b), " ")
	from, bad := netip.ParseAddr(addr)
	n, _ := strconv.Atoi(number)
	if err != nil || bad != nil || n == 0 {
		t.Fatalf("the server at %s sees %q, %v", at, b, err)
	}
	if n >= guesttcp.FirstPort {
		return from.Unmap(), directly
	}
	return from.Unmap(), byTheAgent // the port of an ordinary client
}

// connections begins and ends connections to an echo server, which has an IPv4 and an IPv6
// address.
func connections(t *testing.T, s *server, at []string, by way) {
	t.Run("peer", func(t *testing.T) {
		for i, want := range []string{"127.0.0.1", "::1"} {
			if from, w := wayOf(t, at[i]); from.String() != want || w != by {
				t.Errorf("the server sees %s, which came %s; want %s, %s", from, w, want, by)
			}
		}
	})
	t.Run("half-close", func(t *testing.T) {
		c := dial(t, "tcp", at[0])
		io.WriteString(c, "H")
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "after the end" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("reset by the server", func(t *testing.T) {
		c := dial(t, "tcp", at[1])
		io.WriteString(c, "R")
		if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("reset by the client", func(t *testing.T) {
		c := dial(t, "tcp", at[0])
		io.WriteString(c, "x")
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		if got := s.line(); got != fmt.Sprintf("failed %d", int(syscall.ECONNRESET)) {
			t.Errorf("the server: %s", got)
		}
	})
}

// TestFallback has the guest's kernel drop direct connections to its 127.0.0.1. The agent
// serves them instead.
func TestFallback(t *testing.T) {
	h, distro := withPython(t)
	const setting = "/proc/sys/net/ipv4/conf/lo/route_localnet"
	set := func(value string) string { return "cat " + setting + "; echo " + value + " >" + setting }
	if was := h.sh(t, distro, set("0")); was != "1" {
		t.Fatalf("%s was %s", setting, was)
	}
	t.Cleanup(func() { h.sh(t, distro, set("1")) })
	h.python(t, distro, fmt.Sprintf(echoServer, 18120)).line()
	within(t, quick, "the port opens", func() bool { p := h.portOf(t, "tcp", 18120); return p != nil && p.State == "open" }) // nobody connects yet
	at := both(18120)
	took := func(what string, want way, at string, times int) time.Duration {
		start := time.Now()
		for range times {
			if _, got := wayOf(t, at); got != want {
				t.Errorf("%s: it came %s", what, got)
			}
		}
		each := time.Since(start) / time.Duration(times)
		t.Logf("%s: %v", what, each)
		return each
	}
	// The first connection waits 250 ms for the fast path; then its failure is known.
	if d := took("the first connection", byTheAgent, at[0], 1); d > quick {
		t.Errorf("the first connection took %v", d)
	}
	if d := took("each of the next", byTheAgent, at[0], 10); d > 200*time.Millisecond {
		t.Errorf("each of the next connections took %v", d)
	}
	took("one by IPv6", directly, at[1], 1)
}

// dial connects to an address of the host. The connection ends with the test.
func dial(t *testing.T, network, at string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, at, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	return c
}

// muchBothWays sends to an echo server and reads at the same time.
func muchBothWays(t *testing.T, c net.Conn, size int64) {
	sent, got := sha256.New(), sha256.New()
	var sending sync.WaitGroup
	sending.Go(func() {
		n, err := io.CopyBuffer(io.MultiWriter(c, sent), io.LimitReader(rand.NewChaCha8([32]byte{1}), size), make([]byte, 256<<10))
		if n != size || err != nil {
			t.Errorf("%d bytes sent, %v", n, err)
		}
		c.(*net.TCPConn).CloseWrite()
	})
	start := time.Now()
	n, err := io.CopyBuffer(got, c, make([]byte, 256<<10))
	sending.Wait()
	if n != size || err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	t.Logf("%.0f MB/s each way", float64(size)/1e6/time.Since(start).Seconds())
}

// manyConnections opens n connections, and uses each one.
func manyConnections(t *testing.T, at []string, n int) {
	conns := make([]net.Conn, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 50)
	for i := range conns {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := net.DialTimeout("tcp", at[i%len(at)], time.Minute)
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				return
			}
			c.SetDeadline(time.Now().Add(5 * time.Minute))
			conns[i] = c
		})
	}
	wg.Wait()
	for round := range 2 {
		for i, c := range conns {
			if c != nil {
				fmt.Fprintf(c, "%04d", (i+round)%n)
			}
		}
		for i, c := range conns {
			var b [4]byte
			if c == nil {
				continue
			}
			if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:]) != fmt.Sprintf("%04d", (i+round)%n) {
				t.Fatalf("connection %d: %q, %v", i, b, err)
			}
		}
	}
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}
