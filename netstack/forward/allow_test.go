package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAllow: a client that may not use a port gets nothing of the guest, and the log says why;
// another client of the same port is served.
func TestAllow(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", n)
	g.on(TCP, at, func(c *net.UnixConn) { io.WriteString(c, "secret"); c.CloseWrite() })
	g.on(UDP, at, echoPackets)
	var mu sync.Mutex
	refused := map[netip.AddrPort]bool{}
	var log bytes.Buffer
	f := run(t, Config{
		Guest: g, Auto: auto, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Allow: func(network string, client, to netip.AddrPort) error {
			mu.Lock()
			defer mu.Unlock()
			if to.String() != at || !client.Addr().IsLoopback() {
				t.Errorf("asked for %s from %v to %v", network, client, to)
			}
			if refused[client] {
				return errors.New("it is a stranger")
			}
			return nil
		},
	})
	f.SetListeners([]Listener{listener(TCP, at), listener(UDP, at)})
	awaitStates(t, f, StateOpen, StateOpen)
	// from connects from an address of its own, so that it can be refused beforehand.
	from := func(network string, stranger bool) (net.Conn, error) {
		client := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(freePort(t)))
		mu.Lock()
		refused[client] = stranger
		mu.Unlock()
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(client)}
		if network == UDP {
			d.LocalAddr = net.UDPAddrFromAddrPort(client)
		}
		c, err := d.Dial(network, at)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c, nil
	}
	read := func(stranger bool) (string, error) {
		c, err := from(TCP, stranger)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(c)
		return string(b), err
	}
	if got, err := read(true); got != "" || err == nil {
		t.Errorf("a stranger reads %q, %v", got, err)
	}
	if got, err := read(false); got != "secret" || err != nil {
		t.Errorf("the owner reads %q, %v", got, err)
	}
	stranger, err := from(UDP, true)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := from(UDP, false)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for _, c := range []net.Conn{stranger, owner} {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := owner.Read(buf); string(buf[:m]) != "hello" {
		t.Errorf("the owner reads %q, %v", buf[:m], err)
	}
	// The stranger's packet came first, so it has been dropped by now.
	stranger.SetReadDeadline(time.Now())
	if m, err := stranger.Read(buf); err == nil {
		t.Errorf("a stranger reads %q", buf[:m])
	}
	await(t, f, "the refused ones", func(p []Port) bool { return len(p) == 2 && p[0].Failed == 1 && p[1].Failed == 1 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.Contains(log.String(), "it is a stranger") {
		t.Errorf("the log says %q", log.String())
	}
}
