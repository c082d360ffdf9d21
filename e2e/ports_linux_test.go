package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quick is how long a port may take to open or to close: 100 ms on an idle machine, but these
// tests run on busy ones.
const quick = 5 * time.Second

// port has the fields of "lsub ports --json" that the tests use.
type port struct {
	Kind, Network, Distro, Guest, Process, State, Reason string
	Host                                                 []string
	PID, Active, Connections                             int
}

func (h *host) ports(t *testing.T) []port {
	t.Helper()
	var all []port
	if err := json.Unmarshal([]byte(h.ok(t, "ports", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// portOf returns the port whose guest address ends with ":N", or nil.
func (h *host) portOf(t *testing.T, network string, n int) *port {
	t.Helper()
	for _, p := range h.ports(t) {
		if p.Network == network && strings.HasSuffix(p.Guest, fmt.Sprintf(":%d", n)) {
			return &p
		}
	}
	return nil
}

// within waits until ok, and returns the time.
func within(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > d {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(start)
}

// answers reports whether something listens on an address of the host.
func answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// echoes checks that a word comes back.
func echoes(c net.Conn) error {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

// both returns a port on the host's two loopbacks.
func both(n int) []string {
	return []string{fmt.Sprintf("127.0.0.1:%d", n), fmt.Sprintf("[::1]:%d", n)}
}

// server runs a program in the distro. The program prints a line after each step, and
// continues when it reads one.
type server struct {
	t  *testing.T
	in io.WriteCloser
	r  *io.PipeReader
}

// withPython returns the shared host, and the name of a distro with Python.
func withPython(t *testing.T) (h *host, distro string) {
	t.Helper()
	h, distro = debian(t), "python"
	if _, there := h.list(t)[distro]; !there {
		h.ok(t, "install", toolsImage, "--name", distro)
	}
	return h, distro
}

// python starts a script; it ends with the test.
func (h *host) python(t *testing.T, distro, script string) *server {
	t.Helper()
	return h.serve(t, distro, "python3", "-u", "-c", script)
}

// serve starts a program that ends with its stdin, and so with the test.
func (h *host) serve(t *testing.T, distro string, argv ...string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.command(ctx, append([]string{"exec", "-u", "root", distro, "--"}, argv...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		w.CloseWithError(fmt.Errorf("the program ended: %s", said.String()))
		close(ended)
	}()
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		cancel()
	})
	return &server{t: t, in: in, r: r}
}

// line returns the script's next line.
func (s *server) line() string {
	s.t.Helper()
	var b []byte
	for one := make([]byte, 1); ; {
		if _, err := s.r.Read(one); err != nil {
			s.t.Fatal(err)
		}
		if one[0] == '\n' {
			return string(b)
		}
		b = append(b, one[0])
	}
}

// next lets the script continue, and waits for its next line.
func (s *server) next() string {
	s.t.Helper()
	io.WriteString(s.in, "\n")
	return s.line()
}

// portServer listens in all possible ways, one after the other, and echoes. It is one loop: a
// thread that waits in accept would keep its socket open after a close.
const portServer = `
import selectors, socket as S, sys
waiting = selectors.DefaultSelector()
def serve(s, ready): waiting.register(s, selectors.EVENT_READ, ready); return s
def drop(s): waiting.unregister(s); s.close()
def accept(l): serve(l.accept()[0], echo)
def echo(c):
	try: b = c.recv(65536); c.sendall(b)
	except OSError: b = b""
	if not b: drop(c)
def answer(u): u.sendto(*u.recvfrom(65536))
waiting.register(sys.stdin, selectors.EVENT_READ)
def go(what):
	print(what)
	while True:
		for key, _ in waiting.select():
			if not key.data: sys.stdin.readline(); return
			key.data(key.fileobj)
def tcp(family, at, *opts):
	s = S.socket(family, S.SOCK_STREAM)
	for o in opts: s.setsockopt(*o)
	if at: s.bind(at)
	s.listen(16)
	return serve(s, accept)
def udp(family, at):
	s = S.socket(family, S.SOCK_DGRAM); s.bind(at)
	return serve(s, answer)
go("ready")
ways = (S.AF_INET, "127.0.0.1", 18001), (S.AF_INET, "0.0.0.0", 18002), (S.AF_INET6, "::1", 18003), (S.AF_INET6, "::", 18004), (S.AF_INET, "127.0.0.1", 81)
for kind in tcp, udp:
	for family, host, port in ways:
		s = kind(family, (host, port)); go("open %s %d" % (host, port))
		drop(s); go("closed")
s = tcp(S.AF_INET, ("127.0.0.1", 0)); go("open port 0 %d" % s.getsockname()[1]); drop(s)
s = tcp(S.AF_INET, None); go("open no bind %d" % s.getsockname()[1]); drop(s)
reuse = (S.SOL_SOCKET, S.SO_REUSEPORT, 1)
a = tcp(S.AF_INET, ("127.0.0.1", 18005), reuse); b = tcp(S.AF_INET, ("127.0.0.1", 18005), reuse)
go("two"); drop(a); go("one"); drop(b); go("none")
for i in range(200): drop(tcp(S.AF_INET, ("127.0.0.1", 18006)))
go("short-lived")
all = [tcp(S.AF_INET, ("127.0.0.1", 19000+i)) for i in range(500)]
go("many")
for s in all: drop(s)
go("gone")
`

// echo checks that an address of the host echoes a word.
func echo(network, at string) error {
	c, err := net.DialTimeout(network, at, 20*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	return echoes(c)
}

// refuses reports whether the host's kernel refuses packets to an address.
func refuses(at string) bool {
	c, err := net.Dial("udp", at)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(100 * time.Millisecond)) // it answers at once or not at all
	io.WriteString(c, "hello")
	_, err = c.Read(make([]byte, 1))
	return errors.Is(err, syscall.ECONNREFUSED)
}

// TestPorts has processes listen in all possible ways.
func TestPorts(t *testing.T) {
	h, distro := withPython(t)
	s := h.python(t, distro, portServer)
	if got := s.line(); got != "ready" {
		t.Fatal(got)
	}
	ways := []string{"127.0.0.1 18001", "0.0.0.0 18002", "::1 18003", ":: 18004", "127.0.0.1 81"}
	for _, way := range ways {
		n := s.opened(way)
		for _, at := range both(n) {
			t.Logf("%s of %s open after %v", at, way, within(t, quick, at+" opens", func() bool { return answers(at) }))
		}
		echoed(t, way, n)
		if p := h.portOf(t, "tcp", n); p == nil || p.State != "open" || p.Distro != distro || p.Kind != "auto" {
			t.Errorf("lsub ports: %+v", p)
		}
		within(t, quick, "the process is known", func() bool { p := h.portOf(t, "tcp", n); return p != nil && p.Process == "python3" && p.PID > 1 })
		s.next()
		for _, at := range both(n) {
			t.Logf("%s closed after %v", at, within(t, quick, at+" closes", func() bool { return !answers(at) }))
		}
	}
	packetPorts(t, s, ways)
	for _, way := range []string{"port 0", "no bind"} {
		n := s.opened(way)
		within(t, quick, way+" opens", func() bool { return answers(both(n)[0]) })
		echoed(t, way, n)
	}
	s.next() // two that share a port
	within(t, quick, "a shared port opens", func() bool { return answers(both(18005)[0]) })
	for range 4 { // so that each gets some
		echoed(t, "two that share a port", 18005)
	}
	s.next() // one of them is gone
	time.Sleep(100 * time.Millisecond)
	for range 4 {
		echoed(t, "the one that is left of two", 18005)
	}
	s.next()
	within(t, quick, "a shared port closes", func() bool { return !answers(both(18005)[0]) })
	s.next() // a port that came and went 200 times
	within(t, quick, "short-lived ones are gone", func() bool { return !answers(both(18006)[0]) })
	s.next()
	within(t, quick, "500 ports open", func() bool {
		n := 0
		for _, p := range h.ports(t) {
			if p.State == "open" && p.Process == "python3" {
				n++
			}
		}
		return n >= 500
	})
	for _, n := range []int{19000, 19250, 19499} {
		echoed(t, "one of 500", n)
	}
	s.next()
	within(t, quick, "500 ports close", func() bool { return !answers(both(19000)[0]) && !answers(both(19499)[0]) })
}

// packetPorts has the script receive packets in each way.
func packetPorts(t *testing.T, s *server, ways []string) {
	t.Helper()
	for _, way := range ways {
		n := s.opened(way)
		for _, at := range both(n) {
			var err error
			took := within(t, quick, at+" opens for packets", func() bool { err = echo("udp", at); return !errors.Is(err, syscall.ECONNREFUSED) })
			t.Logf("%s/udp of %s open after %v", at, way, took)
			if err != nil {
				t.Errorf("packets to %s: %v", at, err)
			}
		}
		s.next()
		for _, at := range both(n) {
			t.Logf("%s/udp closed after %v", at, within(t, quick, at+" closes for packets", func() bool { return refuses(at) }))
		}
	}
}

// opened has the script open its next port, in the given way, and returns the port's number.
func (s *server) opened(way string) int {
	s.t.Helper()
	got := s.next()
	n, err := strconv.Atoi(got[strings.LastIndex(got, " ")+1:])
	if err != nil || !strings.HasPrefix(got, "open "+way) {
		s.t.Fatalf("the script says %q, and should open %s", got, way)
	}
	return n
}

// echoed checks that the guest's server echoes on both of the host's addresses, whichever
// address it listens on.
func echoed(t *testing.T, what string, n int) {
	t.Helper()
	for _, at := range both(n) {
		if err := echo("tcp", at); err != nil {
			t.Errorf("%s by %s: %v", what, at, err)
		}
	}
}
