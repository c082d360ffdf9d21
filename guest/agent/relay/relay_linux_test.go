package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPair returns two ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// unixPair returns two ends that tell a close from a half-close as vsock does:
// after a close, writing fails.
func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.UnixConn), d.(*net.UnixConn)
}

// start relays between the host's end of a stream and a server's end of a
// connection; done is closed when it has ended.
func start(t *testing.T) (host *net.UnixConn, server *net.TCPConn, done chan struct{}) {
	t.Helper()
	host, stream := unixPair(t)
	conn, server := tcpPair(t)
	return host, server, relayed(t, loop(t), stream, conn, nil)
}

// loop returns a loop that ends with the test.
func loop(t *testing.T) *Loop {
	t.Helper()
	l, err := OpenLoop(-1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// relayed has the loop relay; done is closed when it has ended.
func relayed(t *testing.T, l *Loop, stream, conn io.Closer, head []byte) (done chan struct{}) {
	t.Helper()
	a, aerr := Descriptor(stream)
	b, berr := Descriptor(conn)
	if aerr != nil || berr != nil {
		t.Fatal(aerr, berr)
	}
	done = make(chan struct{})
	l.Relay(a, b, nil, head, func() { close(done) })
	return done
}

func await(t *testing.T, done chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		buf := make([]byte, 64<<10)
		t.Fatalf("the relay does not end\n%s", buf[:runtime.Stack(buf, true)])
	}
}

// TestBothWays moves much both ways at once, more than all buffers hold.
func TestBothWays(t *testing.T) {
	host, server, done := start(t)
	const size = 64 << 20
	var wg sync.WaitGroup
	var sums [4][]byte
	send := func(at int, c interface {
		io.Writer
		CloseWrite() error
	}) {
		h := sha256.New()
		w := io.MultiWriter(c, h)
		r := rand.NewChaCha8([32]byte{byte(at)})
		if _, err := io.CopyN(w, r, size); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
		sums[at] = h.Sum(nil)
	}
	receive := func(at int, c io.Reader) {
		h := sha256.New()
		if n, err := io.Copy(h, c); n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		sums[at] = h.Sum(nil)
	}
	wg.Go(func() { send(0, host) })
	wg.Go(func() { send(1, server) })
	wg.Go(func() { receive(2, host) })
	wg.Go(func() { receive(3, server) })
	wg.Wait()
	if !bytes.Equal(sums[0], sums[3]) || !bytes.Equal(sums[1], sums[2]) {
		t.Error("bytes have changed on the way")
	}
	await(t, done)
}

// TestDialTCP connects as the agent does, with what came with the request.
func TestDialTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Logf("%s: %v", at, err) // a machine without IPv6
			continue
		}
		defer l.Close()
		addr := netip.MustParseAddrPort(l.Addr().String())
		c, err := DialTCP(t.Context(), unix.Socket, addr)
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		host, stream := unixPair(t)
		done := relayed(t, loop(t), stream, c, []byte("head "))
		io.WriteString(host, "and the rest")
		host.CloseWrite()
		if b, err := io.ReadAll(server); string(b) != "head and the rest" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		server.(*net.TCPConn).SetLinger(0)
		server.Close()
		io.ReadAll(host)
		if _, err := host.Write([]byte("x")); err == nil {
			t.Error("a reset did not come through")
		}
		await(t, done)
		l.Close()
		if c, err := DialTCP(t.Context(), unix.Socket, addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v, %v", c, err)
		}
	}
	// A server that takes no more connections is waited for, and not for ever.
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	name, _ := unix.Getsockname(l)
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for {
		c, err := DialTCP(ctx, unix.Socket, addr)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			break
		}
		defer c.Close()
	}
}

// TestHalfClose has an answer that begins after the end of the question.
func TestHalfClose(t *testing.T) {
	host, server, done := start(t)
	io.WriteString(host, "question")
	host.CloseWrite()
	b, err := io.ReadAll(server)
	if string(b) != "question" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	time.Sleep(10 * time.Millisecond) // the answer takes a while
	io.WriteString(server, "answer")
	server.Close()
	if b, err = io.ReadAll(host); string(b) != "answer" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	host.Close()
	await(t, done)
}

// TestServerEndsFirst closes the server's end: a half-close for the host.
func TestServerEndsFirst(t *testing.T) {
	host, server, done := start(t)
	io.WriteString(server, "bye")
	server.Close()
	if b, err := io.ReadAll(host); string(b) != "bye" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := host.Write(nil); err != nil {
		t.Errorf("the stream was closed, not half-closed: %v", err)
	}
	host.Close()
	await(t, done)
}

// TestResets are told from ends, in both directions.
func TestResets(t *testing.T) {
	t.Run("of the server", func(t *testing.T) {
		host, server, done := start(t)
		server.SetLinger(0)
		server.Close()
		io.ReadAll(host)
		await(t, done) // without anything from the host
		if _, err := host.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the stream is still open: %v", err)
		}
	})
	t.Run("of the host", func(t *testing.T) {
		host, server, done := start(t)
		io.WriteString(host, "x")
		io.ReadFull(server, make([]byte, 1))
		host.Close()
		if _, err := io.ReadAll(server); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server sees %v, no reset", err)
		}
		await(t, done)
	})
	t.Run("of a server that is written to", func(t *testing.T) {
		host, server, done := start(t)
		go func() {
			b := make([]byte, 64<<10)
			for {
				if _, err := host.Write(b); err != nil {
					return
				}
			}
		}()
		io.WriteString(server, "last words")
		io.ReadFull(server, make([]byte, 1<<20))
		server.SetLinger(0)
		server.Close()
		if b, _ := io.ReadAll(host); string(b) != "last words" {
			t.Errorf("%q", b)
		}
		await(t, done)
	})
}

// TestIdle has connections that are silent hold no buffer.
func TestIdle(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 50
	var all []chan struct{}
	var hosts []*net.UnixConn
	l := loop(t)
	for range n {
		host, stream := unixPair(t)
		conn, server := tcpPair(t)
		done := relayed(t, l, stream, conn, nil)
		io.WriteString(host, "x")
		io.ReadFull(server, make([]byte, 1))
		hosts, all = append(hosts, host), append(all, done)
	}
	runtime.GC()
	runtime.GC() // the pool lets go of buffers at the second
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc+after.StackInuse) - int64(before.HeapAlloc+before.StackInuse)) / n
	t.Logf("%d bytes per idle connection, the test's own ends included", each)
	if each > 32<<10 {
		t.Errorf("%d bytes per idle connection", each)
	}
	for _, h := range hosts {
		h.Close()
	}
	for _, done := range all {
		await(t, done)
	}
}

func TestPackets(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	host, stream := unixPair(t)
	done := make(chan struct{})
	go func() { defer close(done); Packets(stream, conn, nil) }()
	sizes := []int{1, 0, 1400, 65507}
	buf := make([]byte, 1<<16)
	for _, n := range sizes {
		p := bytes.Repeat([]byte{byte(n)}, n)
		host.Write(append([]byte{byte(n >> 8), byte(n)}, p...))
		server.SetReadDeadline(time.Now().Add(5 * time.Second))
		m, from, err := server.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:m], p) {
			t.Fatalf("%d bytes of %d, %v", m, n, err)
		}
		server.WriteToUDPAddrPort(buf[:m], from)
		back := make([]byte, 2+n)
		if _, err := io.ReadFull(host, back); err != nil || int(back[0])<<8+int(back[1]) != n || !bytes.Equal(back[2:], p) {
			t.Fatalf("%d bytes came back wrong: %v", n, err)
		}
	}
	server.Close() // its peer hears of that with the next packet
	host.Write([]byte{0, 1, 'x'})
	if _, err := host.Read(buf); err != io.EOF {
		t.Errorf("a server that is gone: %v", err)
	}
	await(t, done)
}
