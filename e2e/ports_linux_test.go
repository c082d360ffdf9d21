package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
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

// echoes wants a word to come back.
func echoes(c net.Conn) error {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

// both are a port on the host's two loopbacks.
func both(n int) []string {
	return []string{fmt.Sprintf("127.0.0.1:%d", n), fmt.Sprintf("[::1]:%d", n)}
}

// server runs a program in the distro, which prints a line whenever it has done
// something and goes on when it reads one.
type server struct {
	t  *testing.T
	in io.WriteCloser
	r  *io.PipeReader
}

// pythonImage has what the programs of tests run with.
const pythonImage = "debian?include=iperf3,python3-minimal,libpython3-stdlib"

// withPython returns the shared host, and the name of a distro with Python.
func withPython(t *testing.T) (h *host, distro string) {
	t.Helper()
	h, distro = debian(t), "python"
	if _, there := h.list(t)[distro]; !there {
		h.ok(t, "install", pythonImage, "--name", distro)
	}
	return h, distro
}

// python starts a script; it ends with the test.
func (h *host) python(t *testing.T, distro, script string) *server {
	t.Helper()
	return h.serve(t, distro, "python3", "-u", "-c", script)
}

// serve starts a program, which ends with its stdin; that ends with the test.
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
	h, distro := withPython(t)
	s := h.python(t, distro, `
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
		if p := h.portOf(t, "tcp", n); p == nil || p.State != "open" || p.Distro != distro || p.Kind != "auto" {
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
