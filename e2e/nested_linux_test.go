package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKVM runs lsub in lsub: the driver's tests and the core of these tests, in a distro whose
// kernel has KVM. With QEMU 10 (trixie) and 7.2 (bookworm), with lsub's vsock and the
// kernel's. On a machine without KVM, QEMU emulates it: that takes long, so './task test:kvm'
// runs this.
func TestKVM(t *testing.T) {
	if os.Getenv("LSUB_TEST_KVM") != "1" {
		t.Skip("it takes half an hour where KVM is emulated; './task test:kvm' runs it")
	}
	h := fresh(t)
	// One processor: QEMU before 8.1 may run code that another one is changing, and the kernel
	// changes its code more often when VMs come and go. VMs in the VM have two all the same.
	h.profile(t, "nested: true\ncpus: 1\nmemory: 5GiB\nidle: {vm: never, distro: never}\n")
	kit := nestedKit(t)
	// All of the driver's tests with each version, and with each vsock.
	for suite, thorough := range map[string]string{"trixie": "user", "bookworm": "kernel"} {
		t.Run(suite, func(t *testing.T) {
			h.ok(t, "install", "debian:"+suite+"?include=qemu-system-x86,mmdebstrap,uidmap,procps", "--name", suite)
			h.sh(t, suite, "mkdir /kit")
			unpack := exec.Command("tar", "-C", kit, "-c", ".")
			pipe, err := unpack.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := unpack.Start(); err != nil {
				t.Fatal(err)
			}
			if r := h.runWith(pipe, "exec", "-u", "root", suite, "--", "tar", "-C", "/kit", "-x"); r.code != 0 {
				t.Fatal(r)
			}
			unpack.Wait()
			t.Logf("%s", h.sh(t, suite, "qemu-system-x86_64 --version | head -1; test -c /dev/kvm"))
			h.ok(t, "exec", "-u", "nobody", suite, "--", "test", "-w", "/dev/kvm")
			for _, vsock := range []string{"user", "kernel"} {
				t.Run(vsock, func(t *testing.T) {
					h.nested(t, suite, vsock, "/kit/e2e", "./e2e.test", "^TestCore$")
					if vsock == thorough {
						h.nested(t, suite, vsock, "/kit/kvm", "./kvm.test", "^(TestConformance|TestDevices|TestStreams)$")
					}
				})
			}
			h.ok(t, "stop", suite)
		})
	}
}

// nested runs tests in a distro, with KVM. They have passed if they ran, and nothing failed.
func (h *host) nested(t *testing.T, distro, vsock, dir, program, tests string) {
	t.Helper()
	begin := time.Now()
	script := fmt.Sprintf("cd %s; export HOME=/root LSUB_TEST_VM=1 LSUB_TEST_GUEST_DIR=/kit/guest LSUB_ACCEL=kvm LSUB_VSOCK=%s LSUB_MEMORY=1024; %s -test.v -test.timeout 50m -test.run '%s'",
		dir, vsock, program, tests)
	out, err := h.command(t.Context(), "exec", "-u", "root", distro, "--", "sh", "-c", script).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\n--- PASS: ") {
		t.Fatalf("%s %s: %v\n%s", program, tests, err, out)
	}
	t.Logf("%s %s: %v", program, tests, time.Since(begin).Round(time.Second))
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " MB/s") || strings.Contains(line, "streams at once") { // of TestStreams
			t.Log(strings.TrimSpace(line))
		}
	}
}

// nestedKit returns a directory with what the tests of TestKVM need in a distro.
func nestedKit(t *testing.T) string {
	t.Helper()
	kit := t.TempDir()
	dir := func(name string) string {
		d := filepath.Join(kit, name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for program, pkg := range map[string]string{dir("kvm") + "/kvm.test": "../hypervisor/kvm", dir("e2e") + "/e2e.test": "."} {
		build := exec.Command("go", "test", "-c", "-o", program, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", build.Args, err, out)
		}
	}
	// The driver's tests make what they boot with tools that the distro lacks.
	guest := exec.Command(filepath.Join(kit, "kvm", "kvm.test"))
	guest.Dir, guest.Env = "../hypervisor/kvm", append(os.Environ(), "LSUB_TEST_MAKE_GUEST="+dir("guest"))
	if out, err := guest.CombinedOutput(); err != nil {
		t.Fatalf("make the guest of the driver's tests: %v: %s", err, out)
	}
	lsub, err := os.ReadFile("../bin/lsub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir("bin"), "lsub"), lsub, 0o755); err != nil {
		t.Fatal(err)
	}
	return kit
}
