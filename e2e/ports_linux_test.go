package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// quick is how long a port may take to open or to close: 100 ms on a machine
// that does nothing else, where these tests do not run.
const quick = 5 * time.Second

// port is what "lsub ports --json" says, as far as the tests are concerned.
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

// within waits until ok, and returns how long it took.
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

// answers tells whether something listens on an address of the host.
func answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// both are a port on the host's two loopbacks.
func both(n int) []string {
	return []string{fmt.Sprintf("127.0.0.1:%d", n), fmt.Sprintf("[::1]:%d", n)}
}

// server runs a Python script in the distro, which prints a line whenever it has
// done something and goes on when it reads one.
type server struct {
	t  *testing.T
	in io.WriteCloser
	r  *io.PipeReader
}

const needPython = `command -v python3 >/dev/null || {
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-minimal libpython3-stdlib
} </dev/null`

// python starts a script; it ends with the test.
func (h *host) python(t *testing.T, distro, script string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.command(ctx, "exec", "-u", "root", distro, "--", "python3", "-u", "-c", script)
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
		w.CloseWithError(fmt.Errorf("the script ended: %s", said.String()))
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

// line returns the next line that the script prints.
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

// next lets the script go on, and waits for its next line.
func (s *server) next() string {
	s.t.Helper()
	io.WriteString(s.in, "\n")
	return s.line()
}

// TestPorts has processes listen in all the ways there are.
func TestPorts(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", needPython)
	s := h.python(t, "debian", `
import socket as S, sys
def go(what=""): print(what); sys.stdin.readline()
def tcp(family, at, *opts):
	s = S.socket(family, S.SOCK_STREAM)
	for o in opts: s.setsockopt(*o)
	if at: s.bind(at)
	s.listen(16)
	return s
go("ready")
for family, at in (S.AF_INET, ("127.0.0.1", 18001)), (S.AF_INET, ("0.0.0.0", 18002)), (S.AF_INET6, ("::1", 18003)), (S.AF_INET6, ("::", 18004)), (S.AF_INET, ("127.0.0.1", 81)):
	s = tcp(family, at); go("open %d" % s.getsockname()[1])
	s.close(); go("closed")
s = tcp(S.AF_INET, ("127.0.0.1", 0)); go("port0 %d" % s.getsockname()[1]); s.close()
s = tcp(S.AF_INET, None); go("nobind %d" % s.getsockname()[1]); s.close()
reuse = (S.SOL_SOCKET, S.SO_REUSEPORT, 1)
a = tcp(S.AF_INET, ("127.0.0.1", 18005), reuse); b = tcp(S.AF_INET, ("127.0.0.1", 18005), reuse)
go("two"); a.close(); go("one"); b.close(); go("none")
for i in range(200): tcp(S.AF_INET, ("127.0.0.1", 18006)).close()
go("short-lived")
all = [tcp(S.AF_INET, ("127.0.0.1", 19000+i)) for i in range(500)]
go("many"); del all
go("gone")
`)
	if got := s.line(); got != "ready" {
		t.Fatal(got)
	}
	for _, n := range []int{18001, 18002, 18003, 18004, 81} {
		if got := s.next(); got != fmt.Sprintf("open %d", n) {
			t.Fatal(got)
		}
		for _, at := range both(n) {
			t.Logf("%s open after %v", at, within(t, quick, at+" opens", func() bool { return answers(at) }))
		}
		if p := h.portOf(t, "tcp", n); p == nil || p.State != "open" || p.Distro != "debian" || p.Kind != "auto" {
			t.Errorf("lsub ports: %+v", p)
		}
		within(t, quick, "the process is known", func() bool { p := h.portOf(t, "tcp", n); return p != nil && p.Process == "python3" && p.PID > 1 })
		s.next()
		for _, at := range both(n) {
			t.Logf("%s closed after %v", at, within(t, quick, at+" closes", func() bool { return !answers(at) }))
		}
	}
	for _, what := range []string{"port0", "nobind"} {
		word, number, _ := strings.Cut(s.next(), " ")
		n, err := strconv.Atoi(number)
		if err != nil || word != what {
			t.Fatal(word, err)
		}
		within(t, quick, what+" opens", func() bool { return answers(both(n)[0]) })
	}
	s.next() // two that share a port
	within(t, quick, "a shared port opens", func() bool { return answers(both(18005)[0]) })
	s.next() // one of them is gone
	time.Sleep(100 * time.Millisecond)
	if !answers(both(18005)[0]) {
		t.Error("a shared port is closed with the first of its sockets")
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
		if !answers(both(n)[0]) || !answers(both(n)[1]) {
			t.Errorf("port %d of 500 does not answer", n)
		}
	}
	s.next()
	within(t, quick, "500 ports close", func() bool { return !answers(both(19000)[0]) && !answers(both(19499)[0]) })
}

// echoServer answers connections and packets on a port, until its input ends.
// Connections: what comes goes back, until its end; "R" first is answered by a
// reset, "H" by a word after the client's end.
const echoServer = `
import socket as S, struct, sys, threading
t = S.socket(S.AF_INET6, S.SOCK_STREAM); t.setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, 1); t.bind(("::", %[1]d)); t.listen(4096)
u = S.socket(S.AF_INET6, S.SOCK_DGRAM); u.bind(("::", %[1]d))
def serve(c):
	try:
		b = c.recv(65536)
		if b[:1] == b"R":
			c.setsockopt(S.SOL_SOCKET, S.SO_LINGER, struct.pack("ii", 1, 0)); c.close(); return
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
	h := debian(t)
	h.sh(t, "debian", needPython)
	s := h.python(t, "debian", fmt.Sprintf(echoServer, 18100))
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
	t.Run("the supervisor stands still", func(t *testing.T) {
		c := dial("tcp", both(18100)[0])
		defer c.Close()
		pid, _ := h.supervisor(t)
		syscall.Kill(pid, syscall.SIGSTOP)
		io.WriteString(c, "hello")
		time.Sleep(10 * time.Second)
		syscall.Kill(pid, syscall.SIGCONT)
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Errorf("the connection is broken: %v", err)
		}
		if !answers(both(18100)[1]) {
			t.Error("no further connection")
		}
	})
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

// TestApache is how people meet this: install a server, and look at it with the
// host's browser.
func TestApache(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends apache2 </dev/null; echo hello >/var/www/html/hello; systemctl restart apache2")
	get := func(url string) (string, error) {
		c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := c.Get(url)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	for _, url := range []string{"http://localhost/hello", "http://127.0.0.1/hello", "http://[::1]/hello"} {
		within(t, quick, url, func() bool { s, err := get(url); return s == "hello\n" && err == nil })
	}
	within(t, quick, "lsub ports knows it", func() bool {
		p := h.portOf(t, "tcp", 80)
		return p != nil && p.Process == "apache2" && p.Connections >= 3
	})
	h.sh(t, "debian", "systemctl stop apache2")
	within(t, quick, "the port closes", func() bool { return !answers("127.0.0.1:80") })
	h.sh(t, "debian", "systemctl start apache2")
	within(t, quick, "it is back", func() bool { s, _ := get("http://localhost/hello"); return s == "hello\n" })
	h.ok(t, "stop", "debian")
	within(t, quick, "the port closes with the distro", func() bool { return !answers("127.0.0.1:80") })
}

// TestPortRules has a profile with all kinds of rules.
func TestPortRules(t *testing.T) {
	h := fresh(t)
	dir := h.dir + "/home/profiles/default"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	unix, err := net.Listen("unix", h.dir+"/agent")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	for _, l := range []net.Listener{l, unix} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.WriteString(c, "host\n"); c.Close() }()
			}
		}()
	}
	_, number, _ := net.SplitHostPort(l.Addr().String())
	profile := fmt.Sprintf(`
ports:
  ignore: [18201]
  next_free: true
  forwards:
  - 18280 -> debian:18200
  reverse:
  - 127.0.0.1:15432 -> %s
  sockets:
  - %s/docker.sock -> debian:/run/echo.sock
  - debian:/run/agent.sock -> %[2]s/agent
`, number, h.dir)
	if err := os.WriteFile(dir+"/profile.yaml", []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:18202")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h.ok(t, "install", "debian")
	h.sh(t, "debian", needPython)
	s := h.python(t, "debian", `
import socket as S, sys, threading
def serve(l):
	while True:
		c, _ = l.accept(); c.sendall(b"guest\n"); c.close()
for n in 18200, 18201, 18202:
	l = S.socket(); l.setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, 1); l.bind(("127.0.0.1", n)); l.listen(); threading.Thread(target=serve, args=(l,), daemon=True).start()
l = S.socket(S.AF_UNIX); l.bind("/run/echo.sock"); l.listen(); threading.Thread(target=serve, args=(l,), daemon=True).start()
print("ready"); sys.stdin.readline()
for family, at in (S.AF_INET, ("127.0.0.1", 15432)), (S.AF_UNIX, "/run/agent.sock"):
	c = S.socket(family); c.connect(at); print(c.makefile().read().strip())
sys.stdin.read()
`)
	s.line()
	read := func(network, at string) string {
		c, err := net.DialTimeout(network, at, 5*time.Second)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		b, err := io.ReadAll(c)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	within(t, quick, "the rule's port", func() bool { return read("tcp", "127.0.0.1:18280") == "guest\n" })
	if answers("127.0.0.1:18200") || answers("127.0.0.1:18201") {
		t.Error("a port is forwarded that a rule has, or that is to be ignored")
	}
	within(t, quick, "the next free port", func() bool { return read("tcp", "127.0.0.1:18203") == "guest\n" })
	if p := h.portOf(t, "tcp", 18202); p == nil || p.State != "open" || !strings.Contains(p.Reason, "127.0.0.1:18202 is taken") {
		t.Errorf("%+v", p)
	}
	if got := read("unix", h.dir+"/docker.sock"); got != "guest\n" {
		t.Errorf("the distro's socket on the host: %q", got)
	}
	if got := s.next(); got != "host" {
		t.Errorf("the host's port in the distro: %q", got)
	}
	if got := s.line(); got != "host" {
		t.Errorf("the host's socket in the distro: %q", got)
	}
	if n := h.sh(t, "debian", "stat -c '%a %U' /run/agent.sock"); n != "600 root" && !strings.HasPrefix(n, "600 ") {
		t.Errorf("the socket in the distro is %s", n)
	}
}
