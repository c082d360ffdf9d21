package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCore tests the core of everything in little time: on emulated machines, and in VMs that
// run in VMs (TestKVM).
func TestCore(t *testing.T) { testCore(t, fresh(t)) }

// arm64 returns a host for one test, whose VM has processors for arm64.
func arm64(t *testing.T) *host {
	t.Helper()
	guest, err := filepath.Abs("../images/guestimage/embedded/arm64")
	if err != nil {
		t.Fatal(err)
	}
	h := fresh(t)
	h.arch, h.env = "arm64", append(h.env, "LSUB_GUEST="+guest)
	return h
}

// machines are the names that the kernel has for processors, by GOARCH.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// testCore tests commands, a terminal, ports both ways, names, the end of the hypervisor and
// of the VM.
func testCore(t *testing.T, h *host) {
	h.installTiny(t)
	if out := h.ok(t, "exec", "tiny", "--", "busybox", "uname", "-m"); out != machines[h.arch] {
		t.Errorf("uname -m: %q, want %q", out, machines[h.arch])
	}
	h.fails(t, 7, nil, "exec", "tiny", "--", "sh", "-c", "exit 7")
	big := strings.Repeat("0123456789abcde\n", 64<<10)
	if r := h.runWith(strings.NewReader(big), "exec", "tiny", "--", "cat"); r.code != 0 || r.out != big {
		t.Errorf("cat: exit %d, %d bytes of %d: %s", r.code, len(r.out), len(big), r.err)
	}

	x := openTerminal(t, h, "exec", "-t", "tiny", "--", "sh")
	x.send("busybox stty -echo; PS1='ready> '\n")
	x.expect("ready> ")
	x.send("busybox stty size; exit 5\n")
	x.expect("24 80")
	if err := <-x.done; err == nil || err.Error() != "exit status 5" {
		t.Errorf("the shell ended with %v, want exit status 5", err)
	}

	h.ok(t, "exec", "tiny", "--", "sh", "-c", "echo of the distro >/root/index.html; busybox httpd -p 18310 -h /root")
	for _, at := range both(18310) {
		within(t, slow, at+" opens", func() bool { return page("http://"+at) == "of the distro" })
	}
	port := webServer(t, "127.0.0.1:0")
	if out := h.ok(t, "exec", "tiny", "--", "wget", "-q", "-O", "-", "http://host.lsub.internal:"+port+"/"); out == "" || out != page("http://127.0.0.1:"+port) {
		t.Errorf("the host's page: %q", out)
	}
	if out := h.ok(t, "exec", "tiny", "--", "nslookup", "tiny.lsub.internal"); !strings.Contains(out, "Name:\ttiny.lsub.internal") {
		t.Errorf("nslookup: %s", out)
	}

	h.ok(t, "exec", "tiny", "--", "sh", "-c", "echo kept >/root/kept; sync")
	pid, qemu := h.supervisor(t)
	if err := syscall.Kill(qemu, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitGone(t, pid)
	if r := h.run("exec", "tiny", "--", "cat", "/root/kept"); r.code != 0 || r.out != "kept\n" || !strings.Contains(r.err, "starting afresh") {
		t.Errorf("after the end of QEMU: %s", r)
	}
	pid, _ = h.supervisor(t)
	h.ok(t, "shutdown")
	waitGone(t, pid)
	if out := h.ok(t, "status"); !strings.Contains(out, "state       off") {
		t.Errorf("after the shutdown: %s", out)
	}
}
