package e2e

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

// TestCoreARM64 has a VM for arm64, on machines of another kind too.
func TestCoreARM64(t *testing.T) { testCore(t, arm64(t)) }

// TestDebianARM64 boots Debian for arm64, on machines of another kind too.
func TestDebianARM64(t *testing.T) {
	if os.Getenv("LSUB_TEST_ARM64") != "1" {
		t.Skip("building the image takes minutes, and a host that runs programs for arm64; './task test:arm64' runs it")
	}
	h := arm64(t)
	if out := h.ok(t, "run", "debian", "--", "uname", "-m"); out != "aarch64" {
		t.Errorf("uname -m: %q", out)
	}
	testSuite(t, h, "debian")
	testUserManager(t, h, "debian")
	testPowerOff(t, h, "debian", "systemctl reboot")
}

// TestEmulator runs programs for arm64 in a VM of another kind: Debian's qemu-user-static in
// one distro serves all, also when that distro stops.
func TestEmulator(t *testing.T) {
	if runtime.GOARCH == "arm64" {
		t.Skip("they are this machine's own")
	}
	h := debian(t)
	image := tarball(t, "tar", archive(t, tinySystemOf(t, "arm64")))
	h.fails(t, 125, []string{"programs for arm64 do not run in the VM", "apt install qemu-user-static"}, "install", "--arch", "arm64", "--from-file", image, "--name", "tiny-arm64")

	h.ok(t, "clone", "debian", "emulator")
	t.Cleanup(func() {
		h.run("exec", "-u", "root", "debian", "--", "sh", "-c", "for f in /proc/sys/fs/binfmt_misc/qemu-*; do echo -1 >$f; done")
		for _, d := range []string{"emulator", "tiny-arm64"} {
			h.run("unregister", "--yes", d)
		}
	})
	h.sh(t, "emulator", "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends qemu-user-static")
	bb, err := busybox("arm64")
	if err != nil {
		t.Fatal(err)
	}
	if r := h.runWith(strings.NewReader(string(bb)), "exec", "-u", "root", "debian", "--", "sh", "-c", "cat >/root/busybox; chmod +x /root/busybox"); r.code != 0 {
		t.Fatal(r)
	}
	check := func(distro, program, when string) {
		t.Helper()
		if out := h.ok(t, "exec", "-u", "root", distro, "--", program, "uname", "-m"); out != "aarch64" {
			t.Errorf("%s, %s: uname -m says %q", distro, when, out)
		}
	}
	check("debian", "/root/busybox", "with an emulator in another distro")
	h.ok(t, "stop", "emulator")
	check("debian", "/root/busybox", "after the stop of the other distro")
	// A whole distro.
	h.ok(t, "install", "--arch", "arm64", "--from-file", image, "--name", "tiny-arm64")
	check("tiny-arm64", "busybox", "a distro for arm64")
	if got := h.list(t)["tiny-arm64"].Arch; got != "arm64" {
		t.Errorf("list says that tiny-arm64 is for %q", got)
	}
	h.ok(t, "unregister", "--yes", "emulator")
	h.sh(t, "debian", "sync; echo 3 >/proc/sys/vm/drop_caches")
	check("tiny-arm64", "busybox", "without the other distro")
}
