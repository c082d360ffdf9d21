package e2e

import (
	"archive/tar"
	"strings"
	"syscall"
	"testing"
)

// TestHostileFiles has a distro's own files obstruct operations on it: only that distro may
// suffer, and nothing may hang.
func TestHostileFiles(t *testing.T) {
	h := freshWith(t, "debian")
	// Subvolumes so deep that their path is too long for the kernel.
	r := h.runWith(strings.NewReader(`chdir "/srv"; for (1..30) { open(my $f, "<", ".") or die $!;
		my $arg = pack("q a4088", 0, "s"x200); ioctl($f, 0x5000940e, $arg) or die $!; chdir("s"x200) or die $! }`), "exec", "-u", "root", "debian", "--", "perl", "-")
	if r.code != 0 {
		t.Fatal(r)
	}
	h.ok(t, "clone", "debian", "deep")
	h.ok(t, "snapshot", "create", "debian", "good")
	h.ok(t, "snapshot", "restore", "--yes", "debian", "good")
	h.ok(t, "unregister", "--yes", "deep")

	// All distros share /dev.
	h.sh(t, "debian", "rm /dev/null")
	h.ok(t, "clone", "debian", "other")
	h.sh(t, "other", "test -c /dev/null && echo x >/dev/null")

	// FIFOs in the place of files that the creation of a distro reads or writes.
	for _, name := range []string{"etc/machine-id", "etc/passwd", "etc/.updated", "etc/environment"} {
		fifo := entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "./" + name, Mode: 0o644}}
		var files []entry
		for _, e := range tinySystem(t) {
			if e.Name != fifo.Name {
				files = append(files, e)
			}
		}
		h.run("install", "--name", "fifo", "--user", "joe", "--from-file", tarball(t, "tar", archive(t, append(files, fifo)))) // it may refuse
		h.run("unregister", "--yes", "fifo")
	}

	// The files that lsub reads are not regular files: root gets in anyway.
	h.installTiny(t)
	h.sh(t, "tiny", "cd /etc; busybox rm passwd; busybox mkfifo passwd wsl.conf; busybox ln -s /proc/kmsg lsub.conf; busybox ln -s /dev/watchdog group")
	h.ok(t, "stop", "tiny")
	for i, want := range [][]string{{"tiny: /etc/wsl.conf: not read", "tiny: /etc/lsub.conf: not read", "tiny: /etc/passwd: not read"}, {"tiny: /etc/passwd: not read"}} {
		r := h.run("exec", "-u", "root", "tiny", "--", "sh", "-c", "grep ^Uid: /proc/self/status")
		if r.code != 0 || !strings.HasPrefix(r.out, "Uid:\t0\t") || strings.Contains(r.err, "wsl.conf") != (i == 0) {
			t.Error(r)
		}
		for _, w := range want {
			if !strings.Contains(r.err, w) {
				t.Errorf("not told: %q: %s", w, r)
			}
		}
	}
	h.ok(t, "exec", "tiny", "--", "true")
	h.fails(t, 125, []string{`no user "joe" in the distro (/etc/passwd: not read: it is no plain file on a disk`, "-u root"}, "exec", "-u", "joe", "tiny", "--", "true")
	h.ok(t, "unregister", "--yes", "tiny")

	// A supervisor is killed while its QEMU has much to write.
	pid, _ := h.supervisor(t)
	cut := make(chan result)
	go func() {
		cut <- h.run("exec", "-u", "root", "debian", "--", "dd", "if=/dev/zero", "of=/root/z", "bs=1M", "count=400")
	}()
	h.sh(t, "debian", "until test -s /root/z; do :; done")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.ok(t, "exec", "debian", "--", "true")
	<-cut
	if log := h.ok(t, "logs"); strings.Contains(log, "stays on the disk") {
		t.Errorf("something could not be deleted:\n%s", log)
	}
}
