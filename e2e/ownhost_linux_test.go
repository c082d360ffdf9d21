package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ownHost moves a host into its own namespaces: a network with only the loopback, and
// resolver files that the test writes. Its installed distros stay.
type ownHost struct {
	*host
	resolv, hosts string // paths of its /etc/resolv.conf and /etc/hosts
	keeper        int    // process that keeps the namespaces
}

func newOwnHost(t *testing.T, h *host) *ownHost {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces of the host's network take root")
	}
	h.ok(t, "shutdown")
	dir := t.TempDir()
	o := &ownHost{host: h, resolv: filepath.Join(dir, "resolv.conf"), hosts: filepath.Join(dir, "hosts")}
	o.write(t, o.resolv, "nameserver 127.0.0.1\n")
	o.write(t, o.hosts, "127.0.0.1 localhost\n")
	o.keeper = keep(t, "-n", "-m", "sh", "-ec", `
ip link set lo up
mount --bind "$1" /etc/resolv.conf
mount --bind "$2" /etc/hosts
echo ready
exec cat`, "sh", o.resolv, o.hosts)
	t.Cleanup(func() {
		h.run("shutdown", "--force")
		h.in = nil
	})
	h.in = []string{"nsenter", "-t", strconv.Itoa(o.keeper), "-n", "-m", "--"}
	return o
}

// keep runs unshare with arguments. The program must print that it is ready, and end with its
// stdin, and so with the test. It keeps the namespaces.
func keep(t *testing.T, args ...string) (pid int) {
	t.Helper()
	keeper := exec.Command("unshare", args...)
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
		stdin.Close()
		keeper.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("new namespaces: %q, %v", line, err)
	}
	return keeper.Process.Pid
}

// inNetwork calls f on a thread in the network of a process. Sockets that f creates stay in
// that network.
func inNetwork(t *testing.T, pid int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// write replaces the content of a file, which may be mounted elsewhere too.
func (o *ownHost) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// dnsmasq starts dnsmasq on the host. It returns once dnsmasq answers.
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
