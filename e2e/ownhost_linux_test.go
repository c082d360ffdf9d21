package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ownHost moves a host into namespaces of its own: a network with nothing but
// the loopback, and files for its resolver that the test writes. What it has
// installed stays.
type ownHost struct {
	*host
	resolv, hosts string // paths of its /etc/resolv.conf and /etc/hosts
}

func newOwnHost(t *testing.T, h *host) *ownHost {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces of the host's network take root")
	}
	h.ok(t, "shutdown")
	dir := t.TempDir()
	o := &ownHost{h, filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts")}
	o.write(t, o.resolv, "nameserver 127.0.0.1\n")
	o.write(t, o.hosts, "127.0.0.1 localhost\n")
	keeper := exec.Command("unshare", "-n", "-m", "sh", "-ec", `
ip link set lo up
mount --bind "$1" /etc/resolv.conf
mount --bind "$2" /etc/hosts
echo ready
exec cat`, "sh", o.resolv, o.hosts) // cat ends with its stdin, so with the test
	stdin, err := keeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	keeper.Stderr = os.Stderr
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.run("shutdown", "--force")
		h.in = nil
		stdin.Close()
		keeper.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the host's namespaces: %q, %v", line, err)
	}
	h.in = []string{"nsenter", "-t", strconv.Itoa(keeper.Process.Pid), "-n", "-m", "--"}
	return o
}

// write replaces what is in a file, which may be mounted elsewhere too.
func (o *ownHost) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// dnsmasq starts one on the host, which answers when this returns.
func (o *ownHost) dnsmasq(t *testing.T, address string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		path = "/usr/sbin/dnsmasq"
	}
	pid := filepath.Join(t.TempDir(), "pid")
	words := append(append([]string(nil), o.in...), path, "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
		"--bind-interfaces", "--listen-address="+address, "--cache-size=0", "--pid-file="+pid)
	out, err := exec.Command(words[0], append(words[1:], args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dnsmasq (package dnsmasq-base): %v\n%s", err, out)
	}
	t.Cleanup(func() {
		b, _ := os.ReadFile(pid)
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			syscall.Kill(n, syscall.SIGTERM)
		}
	})
}
