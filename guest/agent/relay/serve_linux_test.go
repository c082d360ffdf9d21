package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/vsocksecret"
)

// served has a loop serve a unix socket, with an echo server behind it. A stream
// says "relay" to be relayed to that, "take" to be echoed outside the loop.
func served(t *testing.T, secret vsocksecret.Secret) (l *Loop, path string, done *atomic.Int64, ended chan error) {
	t.Helper()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	addr := netip.MustParseAddrPort(echo.Addr().String())
	path = t.TempDir() + "/s"
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}), unix.Listen(listener, 128))
	}
	if err != nil {
		t.Fatal(err)
	}
	l, done, ended = loop(t), new(atomic.Int64), make(chan error, 1)
	go func() {
		ended <- l.Serve(listener, secret, func(in Incoming, said []byte) {
			if rest, ok := bytes.CutPrefix(said, []byte("relay")); ok {
				fd, pending, err := StartTCP(unix.Socket, addr)
				if err != nil || pending {
					t.Errorf("connect: pending %v, %v", pending, err)
				}
				in.Relay(fd, []byte("answer "), rest, func() { done.Add(1) })
				return
			}
			c, said := in.Conn(), bytes.Clone(said)
			go func() { c.Write(said); io.Copy(c, c); c.Close() }()
		})
	}()
	return l, path, done, ended
}

func TestServe(t *testing.T) {
	l, path, done, ended := served(t, nil)
	const each = 200
	var conns []net.Conn
	dial := func(says, want string) {
		t.Helper()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, says)
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c, b); string(b) != want || err != nil {
			t.Fatalf("%q: %q, %v", says, b, err)
		}
		conns = append(conns, c)
	}
	for range each {
		dial("relay hello", "answer  hello")
		dial("take", "take")
		// One that was opened ahead, and not used.
		if c, err := net.Dial("unix", path); err == nil {
			defer c.Close()
		}
	}
	for i, c := range conns[:20] { // all are served in turn
		io.WriteString(c, "again")
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); string(b) != "again" || err != nil {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
	}
	for _, c := range conns[:20] {
		c.Close()
	}
	for end := time.Now().Add(10 * time.Second); done.Load() < 10; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d relays of 10 have ended", done.Load())
		}
	}
	l.Close()
	if err := <-ended; !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if n := done.Load(); n != each {
		t.Errorf("%d relays of %d have ended with the loop", n, each)
	}
	if _, err := conns[20].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a relayed stream after the loop's end: %v", err)
	}
	dialed := conns[21] // taken out of the loop
	io.WriteString(dialed, "x")
	if _, err := io.ReadFull(dialed, make([]byte, 1)); err != nil {
		t.Errorf("a stream taken out of the loop, after its end: %v", err)
	}
	// What comes too late is closed.
	a, b := unixPair(t)
	c, d := unixPair(t)
	fd, _ := Descriptor(b)
	fd2, _ := Descriptor(d)
	over := make(chan struct{})
	l.Relay(fd, fd2, nil, nil, func() { close(over) })
	await(t, over)
	for _, c := range []net.Conn{a, c} {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
	}
}

// TestTurns has a relay that always has something to move keep no other waiting.
func TestTurns(t *testing.T) {
	l := loop(t)
	for range 3 { // busy, both ways
		host, stream := unixPair(t)
		conn, server := tcpPair(t)
		relayed(t, l, stream, conn, nil)
		go io.Copy(server, server)
		go io.Copy(io.Discard, host)
		go func() {
			b := make([]byte, 1<<20)
			for {
				if _, err := host.Write(b); err != nil {
					return
				}
			}
		}()
	}
	host, stream := unixPair(t)
	conn, server := tcpPair(t)
	relayed(t, l, stream, conn, nil)
	go io.Copy(server, server)
	host.SetDeadline(time.Now().Add(20 * time.Second))
	start := time.Now()
	for range 100 {
		host.Write([]byte{1})
		if _, err := io.ReadFull(host, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a round trip beside three busy relays took %v", time.Since(start)/100)
}

// TestBlocked has an end that takes nothing for a while get all of it.
func TestBlocked(t *testing.T) {
	host, server, done := start(t)
	const size = 16 << 20
	go func() {
		host.Write(bytes.Repeat([]byte("blocked "), size/8))
		host.CloseWrite()
	}()
	time.Sleep(50 * time.Millisecond) // every buffer on the way is full
	b, err := io.ReadAll(server)
	if len(b) != size || !bytes.Equal(b[size-8:], []byte("blocked ")) || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	server.Close()
	io.ReadAll(host)
	host.Close()
	await(t, done)
}

// TestServeSecret: streams that say the secret first are served, others get nothing.
func TestServeSecret(t *testing.T) {
	secret := vsocksecret.New()
	_, path, _, _ := served(t, secret)
	talk := func(parts ...[]byte) string {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		for _, p := range parts {
			if _, err := c.Write(p); err != nil {
				return ""
			}
		}
		b := make([]byte, 100)
		n, _ := c.Read(b)
		return string(b[:n])
	}
	for name, parts := range map[string][][]byte{
		"at once":      {append(bytes.Clone(secret), "take"...)},
		"in two parts": {secret[:5], secret[5:], []byte("take")},
	} {
		if got := talk(parts...); got != "take" {
			t.Errorf("the secret %s: %q", name, got)
		}
	}
	for name, first := range map[string][]byte{"another secret": vsocksecret.New(), "zeros": make([]byte, vsocksecret.Size)} {
		if got := talk(first, []byte("take")); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
