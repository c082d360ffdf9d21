package e2e

import (
	"strings"
	"testing"
)

// The files and mounts in the shared directory appear in every distro, and survive the distro
// that made them. Kernel settings are shared too.
func TestSharedFolder(t *testing.T) {
	h := debian(t)
	other := another(t, h, "neighbour", "--user", "ann")
	h.sh(t, "debian", "mkdir /mnt/lsub/m; mount -t tmpfs m /mnt/lsub/m; echo in the mount >/mnt/lsub/m/f")
	t.Cleanup(func() {
		h.run("exec", "-u", "root", "debian", "--", "sh", "-c", "umount /mnt/lsub/m; rm -rf /mnt/lsub/*")
	})
	const look = "stat -fc %T /mnt/lsub/m; cat /mnt/lsub/m/f"
	const want = "tmpfs\nin the mount"
	check := func(distro, when string) {
		t.Helper()
		if out := h.sh(t, distro, look); out != want {
			t.Errorf("in %s %s: %q", distro, when, out)
		}
	}
	check(other, "from the start")
	h.sh(t, "debian", "mkdir /mnt/lsub/late; mount -t tmpfs late /mnt/lsub/late; touch /mnt/lsub/late/f")
	h.sh(t, other, "test -e /mnt/lsub/late/f")
	h.sh(t, other, "umount /mnt/lsub/late")
	h.sh(t, "debian", "test ! -e /mnt/lsub/late/f")
	// It belongs to no one user.
	h.ok(t, "exec", other, "--", "sh", "-c", "echo hello >/mnt/lsub/anns")
	if out := h.sh(t, "debian", "cat /mnt/lsub/anns"); out != "hello" {
		t.Errorf("ann's file: %q", out)
	}
	h.fails(t, 1, nil, "exec", "-u", "nobody", "debian", "--", "rm", "-f", "/mnt/lsub/anns")
	setSysctls(t, h, "debian", other)
	// The distro that made the mount stops, and then one that only sees it.
	h.ok(t, "stop", "debian")
	check(other, "after the stop of the distro that mounted it")
	check("debian", "after its stop")
	h.ok(t, "stop", other)
	check("debian", "after the stop of another")
	h.sh(t, other, "true")
	checkSysctls(t, h, "debian", other)
	h.run("exec", "-u", "root", other, "--", "sh", "-c", "systemctl poweroff; sleep 600")
	check("debian", "after another has powered off")
	// Files of a distro may be mounted there. The mount survives its stop.
	h.sh(t, other, "mkdir -p /root/files /mnt/lsub/files; echo kept >/root/files/f; mount --bind /root/files /mnt/lsub/files")
	h.ok(t, "stop", other)
	if r := h.run("list", "-v"); strings.Contains(r.err, "max_map_count") {
		t.Errorf("list -v of a distro alone says %q", r.err)
	}
	if out := h.sh(t, "debian", "cat /mnt/lsub/files/f; umount /mnt/lsub/files"); out != "kept" {
		t.Errorf("files of another: %q", out)
	}
}

// sysctlFile is a file of kernel settings that tests write in a distro.
const sysctlFile = "/etc/sysctl.d/90-test.conf"

// setSysctls gives each of two distros other values of a setting that they share, and of one
// that each has for itself. They count from its next start on.
func setSysctls(t *testing.T, h *host, first, second string) {
	t.Helper()
	h.sh(t, first, "echo vm.max_map_count=300001 >"+sysctlFile+"; echo kernel.shmmni=4001 >>"+sysctlFile)
	t.Cleanup(func() { h.run("exec", "-u", "root", first, "--", "rm", sysctlFile) })
	h.sh(t, second, "echo vm.max_map_count=300002 >"+sysctlFile+"; echo kernel.shmmni=4002 >>"+sysctlFile)
}

// checkSysctls looks at the settings when the second distro has started after the first:
// its value of the shared setting counts, and "list -v" tells.
func checkSysctls(t *testing.T, h *host, first, second string) {
	t.Helper()
	if out := h.sh(t, first, "cat /proc/sys/vm/max_map_count /proc/sys/kernel/shmmni"); out != "300002\n4001" {
		t.Errorf("the settings in %s are %q", first, out)
	}
	says := first + " wants vm.max_map_count = 300001, but " + second + " started later and has set it to 300002"
	if r := h.run("list", "-v"); !strings.Contains(r.err, says) || strings.Contains(r.err, "shmmni") {
		t.Errorf("list -v says %q", r.err)
	}
}

// A binary format that a distro adds appears in all, and stays when any of them stops.
func TestBinfmt(t *testing.T) {
	h := debian(t)
	other := another(t, h, "neighbour")
	const add = "echo ':lsub-test:E::lsubtest::/bin/cat:' >/proc/sys/fs/binfmt_misc/register"
	const run = "printf 'it runs' >/tmp/x.lsubtest; chmod +x /tmp/x.lsubtest; /tmp/x.lsubtest"
	t.Cleanup(func() {
		h.run("exec", "-u", "root", "debian", "--", "sh", "-c", "echo -1 >/proc/sys/fs/binfmt_misc/lsub-test")
	})
	check := func(distro, when string) {
		t.Helper()
		if out := h.sh(t, distro, run); out != "it runs" {
			t.Errorf("in %s %s: %q", distro, when, out)
		}
	}
	h.sh(t, "debian", add)
	check("debian", "at once")
	check(other, "from the start")
	// A distro with its own formats, whose systemd tries to remove all others.
	h.sh(t, other, "mkdir -p /etc/binfmt.d; echo ':lsub-other:E::lsubother::/bin/cat:' >/etc/binfmt.d/x.conf; systemctl restart systemd-binfmt; test -e /proc/sys/fs/binfmt_misc/lsub-other")
	check("debian", "after a restart of another's systemd-binfmt")
	h.ok(t, "stop", other)
	check("debian", "after the stop of another")
	if out := h.sh(t, other, "systemctl is-active systemd-binfmt; systemctl is-system-running --wait"); out != "active\nrunning" {
		t.Errorf("with formats of its own: %s", out)
	}
	h.sh(t, other, "echo -1 >/proc/sys/fs/binfmt_misc/lsub-other; echo -1 >/proc/sys/fs/binfmt_misc/status; test ! -e /proc/sys/fs/binfmt_misc/lsub-other")
	check("debian", "after another has asked for the end of all")
	h.ok(t, "stop", "debian")
	check(other, "after the stop of the distro that added it")
	// A setting allows it.
	h.sh(t, other, "printf '[boot]\nprotectBinfmt=false\n' >/etc/wsl.conf")
	h.ok(t, "stop", other)
	h.sh(t, other, "systemctl is-active systemd-binfmt")
	if out := h.sh(t, "debian", "ls /proc/sys/fs/binfmt_misc"); strings.Contains(out, "lsub-test") {
		t.Errorf("with protectBinfmt=false: %s", out)
	}
	h.sh(t, other, "cat /proc/sys/fs/binfmt_misc/status | grep -x enabled; echo -1 >/proc/sys/fs/binfmt_misc/status")
	h.sh(t, "debian", add)
}

// When a distro ends itself, nothing else ends, and the next command starts it cleanly.
func TestDistroEndsItself(t *testing.T) {
	h := debian(t)
	other := another(t, h, "neighbour")
	boot := h.sh(t, "debian", "cat /proc/sys/kernel/random/boot_id; echo $(systemctl show -p UserspaceTimestampMonotonic)")
	for _, end := range []string{"reboot -f", "poweroff -f", "systemctl poweroff", "systemctl reboot", "kill -SEGV 1"} {
		h.sh(t, other, "touch /run/before")
		r := h.run("exec", "-u", "root", other, "--", "sh", "-c", end+"; sleep 600")
		if r.code < 128 {
			t.Errorf("%s: the command was not ended: %s", end, r)
		}
		if out := h.sh(t, other, "test ! -e /run/before; systemctl is-system-running --wait"); out != "running" {
			t.Errorf("after %s: %s", end, out)
		}
	}
	// A command during the distro's end waits for the next start.
	for range 2 {
		h.sh(t, other, "systemctl poweroff; while [ -e /run/lsub/ready ]; do sleep 0.02; done")
		if out := h.sh(t, other, "systemctl is-system-running --wait"); out != "running" {
			t.Errorf("while it went: %s", out)
		}
	}
	if now := h.sh(t, "debian", "cat /proc/sys/kernel/random/boot_id; echo $(systemctl show -p UserspaceTimestampMonotonic)"); now != boot {
		t.Errorf("debian was %s, is %s", boot, now)
	}
	// PID 1 cannot be killed from inside.
	h.sh(t, other, "kill -9 1; sleep 0.2; systemctl is-system-running")
}

func TestTinyEndsItself(t *testing.T) {
	h := debian(t)
	h.ok(t, "install", "--name", "tiny", "--from-file", tarball(t, "gz", archive(t, tinySystem(t))))
	t.Cleanup(func() { h.run("unregister", "--yes", "tiny") })
	for _, end := range []string{"busybox poweroff", "busybox reboot", "busybox halt", "busybox poweroff -f"} {
		h.sh(t, "tiny", "touch /run/before")
		r := h.run("exec", "tiny", "--", "sh", "-c", "trap 'echo ending; exit 3' TERM; "+"/bin/"+end+"; while :; do sleep 0.1; done")
		if r.code != 3 && r.code < 128 || r.code == 3 && r.out != "ending\n" {
			t.Errorf("%s: %s", end, r)
		}
		h.sh(t, "tiny", "test ! -e /run/before")
	}
}

// A distro that uses all memory loses only the process that does it. The VM and everything
// else in it continue.
func TestMemoryReserve(t *testing.T) {
	h := fresh(t)
	h.env = append(h.env, "LSUB_MEMORY=768")
	h.ok(t, "install", "debian", "--name", "greedy")
	h.ok(t, "install", "debian", "--name", "modest")
	modest := h.sh(t, "modest", "systemctl show -p MainPID dbus; cat /proc/sys/kernel/random/boot_id")
	for range 2 {
		if r := h.run("exec", "-u", "root", "greedy", "--", "tail", "/dev/zero"); r.code != 137 {
			t.Errorf("who takes all memory: %s", r)
		}
	}
	if out := h.sh(t, "greedy", "dmesg | grep -o 'oom-kill:constraint=[A-Z_]*' | sort -u"); out != "oom-kill:constraint=CONSTRAINT_MEMCG" {
		t.Errorf("the kernel killed by %s", out)
	}
	if now := h.sh(t, "modest", "systemctl show -p MainPID dbus; cat /proc/sys/kernel/random/boot_id"); now != modest {
		t.Errorf("another distro was %s, is %s", modest, now)
	}
	if out := h.ok(t, "status"); out == "" {
		t.Error("lsub status says nothing")
	}
}

// A distro's mounts appear in its own containers, and in no other distro.
func TestMountsStayApart(t *testing.T) {
	h := debian(t)
	other := another(t, h, "neighbour")
	h.sh(t, other, "true")
	out := h.sh(t, "debian", `mkdir -p /srv/m; mkfifo /srv/mounted /srv/seen
unshare -m --propagation slave sh -c 'read x </srv/mounted; stat -fc %T /srv/m >/srv/seen' &
mount -t tmpfs m /srv/m; echo now >/srv/mounted; cat /srv/seen; wait`)
	if out != "tmpfs" {
		t.Errorf("a container sees %s", out)
	}
	h.sh(t, other, "! grep /srv/m /proc/self/mountinfo")
	h.sh(t, "debian", "umount /srv/m; rm -r /srv/m /srv/mounted /srv/seen")
}
