package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// maxHeld is the limit for the supervisor's private memory during the test, in bytes. 155 MiB
// were measured.
const maxHeld = 512 << 20

// flood runs in the distro and misbehaves in many ways; each input line starts the next one.
// Its arguments are ports of the host: of an endless sender, of nobody, and of a silent UDP
// server.
const flood = `
import os, resource, signal, socket as S, struct, sys, threading, time
endless, nobody, silent = map(int, sys.argv[1:4])
host = S.gethostbyname("host.lsub.internal")
def go(what): print(what); sys.stdin.readline()
def streams(first, count, out):
	n = 0
	for i in range(count): # to ports that the host has, and that it has not
		s = S.socket(S.AF_VSOCK, S.SOCK_STREAM); s.setblocking(False)
		try: s.connect((2, first + i % 3000))
		except OSError: pass
		s.close(); n += 1
	out.append(n)
def syns(port, count):
	raw = S.socket(S.AF_INET, S.SOCK_RAW, S.IPPROTO_TCP); raw.setsockopt(S.SOL_SOCKET, S.SO_SNDBUF, 1<<20)
	me = S.socket(S.AF_INET, S.SOCK_DGRAM); me.connect((host, 9)); me = me.getsockname()[0]
	pseudo = S.inet_aton(me) + S.inet_aton(host) + struct.pack("!HH", 6, 20)
	for i in range(count):
		h = struct.pack("!HHIIBBHHH", 1024 + i % 60000, port, i, 0, 5 << 4, 2, 65535, 0, 0)
		t = sum(struct.unpack("!16H", pseudo + h)); t = (t >> 16) + (t & 0xffff); t = ~(t + (t >> 16)) & 0xffff
		send(raw, h[:16] + struct.pack("!H", t) + h[18:])
def send(raw, packet):
	while True:
		try: raw.sendto(packet, (host, 0)); break
		except OSError: time.sleep(0.001) # the card's queue is full
def flows(port, count):
	raw = S.socket(S.AF_INET, S.SOCK_RAW, S.IPPROTO_UDP)
	for i in range(count): send(raw, struct.pack("!HHHH", 2000 + i, port, 9, 0) + b"x")
go("ready")
out = []
all = [threading.Thread(target=streams, args=(900 + 1500 * i, 50000, out)) for i in range(2)]
for t in all: t.start()
for t in all: t.join()
go("streams %d" % sum(out))
syns(nobody, 10000); syns(endless, 10000)
go("syns")
flows(silent, 5000)
go("flows")
held = []
for i in range(5000):
	try:
		s = S.socket(); s.settimeout(20); s.connect((host, endless)); held.append(s)
	except OSError: break
go("unread %d" % len(held))
del held
def files(told): # until the VM has no more for users; PID 1 has its own
	resource.setrlimit(resource.RLIMIT_NOFILE, (100000, 100000)); os.setuid(65534)
	held = []
	try:
		while True: held.append(os.open("/dev/null", 0))
	except OSError as e: os.write(told, b"%d" % e.errno)
	time.sleep(3600)
most = open("/proc/sys/fs/file-max").read()
open("/proc/sys/fs/file-max", "w").write("8000")
said, told = os.pipe()
child = os.fork()
if child == 0: files(told)
go("files %s" % os.read(said, 10).decode())
os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
open("/proc/sys/fs/file-max", "w").write(most)
mute = S.socket(); mute.setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, 1); mute.bind(("127.0.0.1", 18700)); mute.listen(4096)
go("mute")
`

// TestFlood has a distro try to exhaust the host. The host stays within its limits, reports
// them, and serves others.
func TestFlood(t *testing.T) {
	h := freshWith(t, toolsImage)
	fine := h.python(t, "debian", fmt.Sprintf(echoServer, 18701))
	fine.line()
	within(t, quick, "the other's port opens", func() bool { return answers(both(18701)[0]) })
	pid, _ := h.supervisor(t)
	check := func(when string) {
		t.Helper()
		c, err := net.DialTimeout("tcp", both(18701)[0], time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer c.Close()
		start := time.Now()
		if err := echoes(c); err != nil {
			t.Errorf("%s: another's connection: %v", when, err)
		}
		held := memoryHeld(t, pid)
		t.Logf("%s: the supervisor holds %d MiB; an answer took %v", when, held>>20, time.Since(start))
		if held > maxHeld {
			t.Errorf("%s: the supervisor holds %d MiB", when, held>>20)
		}
	}
	endless, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer endless.Close()
	go func() {
		for {
			c, err := endless.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, neverEnding{})
			}()
		}
	}()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	number := func(a net.Addr) string { _, port, _ := net.SplitHostPort(a.String()); return port }
	s := h.serve(t, "debian", "python3", "-u", "-c", flood, number(endless.Addr()), number(nobody.Addr()), number(silent.LocalAddr()))
	s.line()
	check("at first")
	if got := s.next(); got != "streams 100000" {
		t.Fatal(got)
	}
	check("after 100,000 streams")
	s.next()
	check("after 20,000 SYNs")
	s.next()
	check("after 5,000 flows of UDP")
	if log := h.ok(t, "logs"); !strings.Contains(log, "the guest has all the UDP flows that it may") {
		t.Errorf("the log does not say that a limit was reached:\n%s", log)
	}
	word, n, _ := strings.Cut(s.next(), " ")
	if many, err := strconv.Atoi(n); word != "unread" || err != nil || many < 500 {
		t.Errorf("connections that nobody reads: %s %s", word, n)
	}
	check("with " + n + " connections that nobody reads")
	if got, want := s.next(), fmt.Sprintf("files %d", syscall.ENFILE); got != want {
		t.Errorf("a user opens files until %q, want %q", got, want)
	}
	h.sh(t, "debian", "cat /proc/sys/fs/file-nr") // a command still starts
	check("when users can open no more files")
	s.next()
	// A server in the distro that never accepts, and so never reads.
	within(t, quick, "the mute one's port opens", func() bool { return answers(both(18700)[0]) })
	block := bytes.Repeat([]byte{1}, 1<<20)
	for range 300 {
		c, err := net.DialTimeout("tcp", both(18700)[0], time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		for err == nil {
			_, err = c.Write(block)
		}
	}
	check("with 300 connections to one that does not read")
	if n := strings.Count(h.ok(t, "logs"), "\n"); n > 1000 {
		t.Errorf("the log has %d lines", n)
	}
}

// neverEnding is an endless reader.
type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

// memoryHeld returns a process's private memory, in bytes.
func memoryHeld(t *testing.T, pid int) (bytes int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no RssAnon of %d", pid)
	return 0
}
