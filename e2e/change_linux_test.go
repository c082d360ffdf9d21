package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pause is how long the supervisor is stopped in tests. It must be longer than commands wait
// for it. The VM is stopped for half as long. LSUB_TEST_PAUSE=60s tests a pause as long as on
// a user's host.
func pause(t *testing.T) time.Duration {
	text := os.Getenv("LSUB_TEST_PAUSE")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("LSUB_TEST_PAUSE: %v", err)
	}
	return d
}

// talker runs in the distro. It has an echo server on port 18600, and its own connections: a
// line "NAME tcp|udp ADDRESS PORT" sends a word over the named one and reports whether it
// comes back, how the connection ended, or that nothing came for some time.
const talker = `
import socket as S, sys, threading
l = S.socket(); l.setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, 1); l.bind(("127.0.0.1", 18600)); l.listen(64)
def serve(c):
	try:
		while b := c.recv(4096): c.sendall(b)
	except OSError: pass
	c.close()
def accept():
	while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
conns = {}
def talk(name, kind, host, port):
	try:
		c = conns.get(name)
		if not c:
			c = S.socket(S.AF_INET, S.SOCK_STREAM if kind == "tcp" else S.SOCK_DGRAM); c.settimeout(5)
			c.connect((host, int(port))); conns[name] = c
		c.send(b"x")
		return "ok" if c.recv(4096) else "ended"
	except S.timeout: return "silence"
	except OSError as e: conns.pop(name, None); return "failed " + str(e.errno)
print("ready")
for line in sys.stdin: print(talk(*line.split()))
`

// ask sends the program a line, and returns its answer.
func (s *server) ask(line string) string {
	s.t.Helper()
	io.WriteString(s.in, line+"\n")
	return s.line()
}

// TestSleepAndChange stops everything for a while, and changes the host's address.
// Connections continue or fail soon, and nothing has to be shut down.
func TestSleepAndChange(t *testing.T) {
	h := freshWith(t, toolsImage)
	o := newOwnHost(t, h)
	far := o.neighbour(t)
	s := h.python(t, "debian", talker)
	s.line()
	all := []string{"far tcp 10.231.7.2 7000", "farther udp 10.231.7.2 7000", "near tcp host.lsub.internal 7000", "nearer udp host.lsub.internal 7000"}
	serveEcho(t, far, "10.231.7.2:7000")
	serveEcho(t, o.keeper, "127.0.0.1:7000")
	within(t, quick, "the distro's port opens", func() bool { p := h.portOf(t, "tcp", 18600); return p != nil && p.State == "open" })
	in := o.dial(t, "127.0.0.1:18600")
	// works checks that existing connections work, and new ones too.
	round := 0
	works := func(when string) {
		t.Helper()
		if err := echoes(in); err != nil {
			t.Errorf("%s: the connection from the host: %v", when, err)
		}
		if err := echoes(o.dial(t, "127.0.0.1:18600")); err != nil {
			t.Errorf("%s: a new connection from the host: %v", when, err)
		}
		round++
		for _, c := range all {
			for _, c := range []string{c, fmt.Sprintf("round%d-%s", round, c)} {
				if got := s.ask(c); got != "ok" {
					t.Errorf("%s: %s: %s", when, c, got)
				}
			}
		}
		for _, p := range h.ports(t) {
			if p.State != "open" {
				t.Errorf("%s: %+v", when, p)
			}
		}
	}
	// rightTime checks that the distro's clock is right, at once or soon.
	rightTime := func(when string) {
		t.Helper()
		took := within(t, 20*time.Second, when+": the clock is right", func() bool {
			before := time.Now()
			sec, err := strconv.ParseFloat(h.sh(t, "debian", "date +%s.%N"), 64)
			at := time.Unix(0, int64(sec*1e9))
			return err == nil && at.After(before.Add(-time.Second)) && at.Before(time.Now().Add(time.Second))
		})
		t.Logf("%s: the clock is right after %v", when, took)
	}
	works("at first")
	pid, qemu := h.supervisor(t)
	stop := func(pids ...int) (goOn func()) {
		for _, p := range pids {
			syscall.Kill(p, syscall.SIGSTOP)
		}
		for _, p := range pids { // on a busy machine, the signal takes a while
			within(t, quick, "the process stands still", func() bool { return standsStill(p) })
		}
		return func() {
			for _, p := range pids {
				syscall.Kill(p, syscall.SIGCONT)
			}
		}
	}
	t.Run("the VM stands still", func(t *testing.T) {
		goOn := stop(qemu)
		time.Sleep(pause(t) / 2)
		goOn()
		rightTime("after it")
		works("after it")
	})
	t.Run("the supervisor stands still", func(t *testing.T) {
		h.sh(t, "debian", "date -s '1 hour ago'") // as if the host had slept meanwhile
		goOn := stop(pid)
		begin := time.Now()
		// No command hangs; it reports an error.
		h.fails(t, 125, []string{"the supervisor does not answer", "lsub: hint: "}, "ports")
		time.Sleep(pause(t) - time.Since(begin))
		goOn()
		rightTime("after it")
		works("after it")
	})
	t.Run("the host sleeps", func(t *testing.T) {
		goOn := stop(pid, qemu)
		time.Sleep(pause(t) / 4)
		goOn()
		works("after it")
	})
	t.Run("the address is away for a moment", func(t *testing.T) {
		o.ip(t, "addr del 10.231.7.1/24 dev eth0")
		time.Sleep(2 * time.Second)
		o.ip(t, "addr add 10.231.7.1/24 dev eth0")
		works("after it")
	})
	t.Run("the address changes", func(t *testing.T) {
		o.ip(t, "addr del 10.231.7.1/24 dev eth0")
		o.ip(t, "addr add 10.231.7.3/24 dev eth0")
		if got := s.ask("new tcp 10.231.7.2 7000"); got != "ok" {
			t.Errorf("a new connection: %s", got)
		}
		took := within(t, 30*time.Second, "a connection from the old address fails", func() bool { return strings.HasPrefix(s.ask("far tcp 10.231.7.2 7000"), "failed") })
		t.Logf("a connection from the old address has failed after %v", took)
		took = within(t, 30*time.Second, "a UDP socket's packets come through again", func() bool { return s.ask("farther udp 10.231.7.2 7000") == "ok" })
		t.Logf("a UDP socket's packets come through after %v more", took)
		works("after it")
	})
}

// standsStill tells whether all threads of a process are stopped.
func standsStill(pid int) bool {
	states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range states {
		b, _ := os.ReadFile(name)
		if _, state, _ := bytes.Cut(b, []byte(") ")); !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return err == nil && len(states) > 0
}

// neighbour gives the host a card with the address 10.231.7.1, and a neighbour with
// 10.231.7.2. It returns the process that keeps the neighbour's network.
func (o *ownHost) neighbour(t *testing.T) (pid int) {
	t.Helper()
	pid = keep(t, "-n", "sh", "-ec", "ip link set lo up; echo ready; exec cat")
	o.ip(t, fmt.Sprintf("link add eth0 type veth peer name eth0 netns %d", pid))
	for _, args := range []string{"addr add 10.231.7.2/24 dev eth0", "link set eth0 up"} {
		tool(t, nil, "nsenter", append([]string{"-t", strconv.Itoa(pid), "-n", "ip"}, strings.Fields(args)...)...)
	}
	o.ip(t, "addr add 10.231.7.1/24 dev eth0")
	o.ip(t, "link set eth0 up")
	return pid
}

// ip runs ip(8) on the host.
func (o *ownHost) ip(t *testing.T, args string) {
	t.Helper()
	words := append(append(append([]string(nil), o.in...), "ip"), strings.Fields(args)...)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// serveEcho serves TCP and UDP on an address of a process' network until the test ends.
func serveEcho(t *testing.T, pid int, at string) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	var err, uerr error
	inNetwork(t, pid, func() {
		l, err = net.Listen("tcp4", at)
		u, uerr = net.ListenPacket("udp4", at)
	})
	if err := errors.Join(err, uerr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := u.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				u.WriteTo(buf[:n], from)
			}
		}
	}()
}

// dial connects to an address of the host.
func (o *ownHost) dial(t *testing.T, at string) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	inNetwork(t, o.keeper, func() { c, err = net.DialTimeout("tcp4", at, 30*time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
