package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPortRules tests a profile with all kinds of rules.
func TestPortRules(t *testing.T) {
	h := freshWith(t, toolsImage)
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
  users: owner
  next_free: true
  forwards:
  - 18280 -> debian:18200
  - 18520/both -> debian:18520
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
	t.Run("another user", func(t *testing.T) { testAnotherUser(t, h) })
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
	t.Run("iperf3", func(t *testing.T) { testIperf(t, h) })
	t.Run("nothing else is open", func(t *testing.T) {
		open := func(network string, n int) []string {
			return []string{fmt.Sprintf("%s 127.0.0.1:%d", network, n), fmt.Sprintf("%s [::1]:%d", network, n)}
		}
		want := slices.Concat(open("tcp", 18203), open("tcp", 18280), open("tcp", 18520), open("udp", 18520))
		slices.Sort(want)
		if got := h.listening(t); !slices.Equal(got, want) {
			t.Errorf("the VM's processes listen on %q, want %q", got, want)
		}
	})
	if n := h.sh(t, "debian", "stat -c '%a %U' /run/agent.sock"); n != "600 root" && !strings.HasPrefix(n, "600 ") {
		t.Errorf("the socket in the distro is %s", n)
	}
}

// testAnotherUser connects to a port of the host as another user: nothing of the distro comes.
func testAnotherUser(t *testing.T, h *host) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	const read = "exec 3<>/dev/tcp/127.0.0.1/18280 && cat <&3"
	cmd := exec.Command("setpriv", "--reuid=65534", "--clear-groups", "bash", "-c", read)
	if out, err := cmd.CombinedOutput(); strings.Contains(string(out), "guest") || err == nil {
		t.Errorf("another user reads %q: %v", out, err)
	}
	if out, err := exec.Command("bash", "-c", read).CombinedOutput(); string(out) != "guest\n" || err != nil {
		t.Errorf("the owner reads %q: %v", out, err)
	}
	if log := h.ok(t, "logs"); !strings.Contains(log, "the client belongs to user ") {
		t.Errorf("the log does not say whose connection was refused:\n%s", log)
	}
}

// TestTwoProfiles has the VMs of two profiles listen on one port. The first one keeps it, the
// other one names the first, and gets the port after it.
func TestTwoProfiles(t *testing.T) {
	h, distro := withPython(t)
	s := h.python(t, distro, fmt.Sprintf(echoServer, 18130))
	s.line()
	within(t, quick, "the first's port opens", func() bool { return answers(both(18130)[0]) && answers(both(18130)[1]) })
	other := *h
	other.env = append(slices.Clone(h.env), "LSUB_PROFILE=other")
	t.Cleanup(func() { other.run("shutdown", "--force") })
	other.installTiny(t)
	other.sh(t, "tiny", "echo other >/root/index.html; busybox httpd -p 18130 -h /root")
	want := "127.0.0.1:18130 is taken by lsub's profile default, for [::]:18130 in its distro " + distro
	within(t, quick, "the other says who has the port", func() bool {
		p := other.portOf(t, "tcp", 18130)
		return p != nil && p.Reason == want && p.State == "failed"
	})
	echoed(t, "the first", 18130)
	s.in.Close()
	for _, at := range both(18130) {
		within(t, 2*quick, at+" is the other's", func() bool { return page("http://"+at) == "other" })
	}
	if p := other.portOf(t, "tcp", 18130); p == nil || p.State != "open" || p.Reason != "" {
		t.Errorf("%+v", p)
	}
}

// listening returns the addresses where the supervisor and its QEMU listen, according to the
// host's kernel.
func (h *host) listening(t *testing.T) (all []string) {
	t.Helper()
	pid, qemu := h.supervisor(t)
	for line := range strings.Lines(tool(t, nil, "ss", "-H", "-l", "-n", "-p", "-t", "-u")) {
		if strings.Contains(line, fmt.Sprintf("pid=%d,", pid)) || strings.Contains(line, fmt.Sprintf("pid=%d,", qemu)) {
			f := strings.Fields(line)
			all = append(all, f[0]+" "+f[4])
		}
	}
	slices.Sort(all)
	return all
}

// testIperf measures both directions, TCP and UDP. Its client sends packets as soon as the
// server is ready, so the port must be open already: it has a rule.
func testIperf(t *testing.T, h *host) {
	state := func(want string) func() bool {
		return func() bool { p := h.portOf(t, "tcp", 18520); return p != nil && p.State == want }
	}
	for i, args := range []string{"", "--reverse", "--udp --bitrate 20M --length 1400", "--udp --bitrate 20M --length 1400 --reverse"} {
		type sum struct {
			Bits    float64 `json:"bits_per_second"`
			Lost    float64 `json:"lost_percent"`
			Packets int
		}
		var res struct {
			Error string
			End   struct {
				Sum      sum
				Received sum `json:"sum_received"`
			}
		}
		h.sh(t, "debian", "iperf3 --server --one-off --daemon --port 18520")
		within(t, quick, "the server listens", state("open"))
		at := []string{"127.0.0.1", "::1"}[i%2]
		out := tool(t, nil, "iperf3", append([]string{"--client", at, "--port", "18520", "--time", "2", "--json"}, strings.Fields(args)...)...)
		if err := json.Unmarshal([]byte(out), &res); err != nil {
			t.Fatal(err)
		}
		got := res.End.Received
		if strings.Contains(args, "udp") {
			got = res.End.Sum
		}
		t.Logf("iperf3 %s: %.0f Mbit/s, of %d packets %.1f %% lost", args, got.Bits/1e6, got.Packets, got.Lost)
		if res.Error != "" || got.Bits < 1e6 || got.Lost > 20 {
			t.Errorf("iperf3 %s: %+v", args, res)
		}
		within(t, quick, "the server ends", state("waiting"))
	}
}
