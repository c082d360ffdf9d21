package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/netstack/loopback"
)

// echoServer answers connections and packets on a port, until its input ends.
// Connections: what comes goes back, until its end; "R" first is answered by a
// reset, "H" by a word after the client's end, "P" by the client's address.
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

// TestConnections sends through forwarded ports what a network does.
func TestConnections(t *testing.T) {
	h, distro := withPython(t)
	s := h.python(t, distro, fmt.Sprintf(echoServer, 18100))
	s.line()
	for _, at := range both(18100) {
		within(t, quick, at+" opens", func() bool { return answers(at) })
	}
	dial := func(network, at string) net.Conn {
		t.Helper()
		c, err := net.DialTimeout(network, at, 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Minute))
		return c
	}
	t.Run("packets", func(t *testing.T) {
		buf := make([]byte, 1<<16)
		for _, at := range both(18100) {
			c := dial("udp", at) // connected: it takes answers from this port alone
			defer c.Close()
			for _, size := range []int{1, 1472, 9000, 65000} {
				c.Write(bytes.Repeat([]byte{7}, size))
				c.SetReadDeadline(time.Now().Add(time.Minute))
				if n, err := c.Read(buf); n != size || err != nil {
					t.Errorf("%s: %d bytes of %d, %v", at, n, size, err)
				}
			}
		}
	})
	t.Run("peer", func(t *testing.T) {
		for i, want := range []string{"::ffff:127.0.0.1", "::1"} {
			c := dial("tcp", both(18100)[i])
			defer c.Close()
			io.WriteString(c, "P")
			b, err := io.ReadAll(c)
			addr, number, _ := strings.Cut(string(b), " ")
			// One of the agent's would have an ordinary client's port.
			if n, _ := strconv.Atoi(number); addr != want || n < loopback.FirstPort || err != nil {
				t.Errorf("the server sees %q, %v", b, err)
			}
		}
	})
	t.Run("half-close", func(t *testing.T) {
		c := dial("tcp", both(18100)[0])
		defer c.Close()
		io.WriteString(c, "H")
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "after the end" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("reset by the server", func(t *testing.T) {
		c := dial("tcp", both(18100)[1])
		defer c.Close()
		io.WriteString(c, "R")
		if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("reset by the client", func(t *testing.T) {
		c := dial("tcp", both(18100)[0])
		io.WriteString(c, "x")
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		if got := s.line(); got != fmt.Sprintf("failed %d", int(syscall.ECONNRESET)) {
			t.Errorf("the server: %s", got)
		}
	})
	t.Run("1 GiB each way at once", func(t *testing.T) { muchBothWays(t, dial("tcp", both(18100)[0]).(*net.TCPConn)) })
	t.Run("1000 at once", func(t *testing.T) { manyConnections(t, both(18100)) })
}

// muchBothWays sends to an echo server and reads at the same time.
func muchBothWays(t *testing.T, c *net.TCPConn) {
	defer c.Close()
	const size = 1 << 30
	sent, got := sha256.New(), sha256.New()
	var sending sync.WaitGroup
	sending.Go(func() {
		n, err := io.CopyBuffer(io.MultiWriter(c, sent), io.LimitReader(rand.NewChaCha8([32]byte{1}), size), make([]byte, 256<<10))
		if n != size || err != nil {
			t.Errorf("%d bytes sent, %v", n, err)
		}
		c.CloseWrite()
	})
	start := time.Now()
	n, err := io.CopyBuffer(got, c, make([]byte, 256<<10))
	sending.Wait()
	if n != size || err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	t.Logf("%.0f MB/s each way", size/1e6/time.Since(start).Seconds())
}

// manyConnections opens 1000 connections, and uses each.
func manyConnections(t *testing.T, at []string) {
	const n = 1000
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
