package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestExec(t *testing.T) {
	h := debian(t)
	if out := h.ok(t, "exec", "debian", "--", "cat", "/etc/os-release"); !strings.Contains(out, "VERSION_CODENAME=trixie") {
		t.Errorf("os-release: %s", out)
	}
	if out := h.ok(t, "exec", "debian", "--", "uname", "-srn"); !strings.HasPrefix(out, "Linux debian 6.") {
		t.Errorf("uname: %s", out)
	}
	t.Run("exit codes", func(t *testing.T) {
		for script, want := range map[string]int{"exit 7": 7, "true": 0, "kill -9 $$": 137, "kill -TERM $$": 143} {
			if r := h.run("exec", "debian", "--", "sh", "-c", script); r.code != want {
				t.Errorf("want %d: %s", want, r)
			}
		}
		h.fails(t, 127, []string{"lsub: error: command not found: no-such-command"}, "exec", "debian", "--", "no-such-command")
		h.fails(t, 127, nil, "exec", "debian", "--", "/no/such/command")
		h.fails(t, 126, []string{"permission denied"}, "exec", "debian", "--", "/etc/passwd")
		h.fails(t, 126, nil, "exec", "debian", "--", "/etc")
	})
	t.Run("stdio", func(t *testing.T) {
		in := make([]byte, 5<<20)
		for i := range in {
			in[i] = byte(rand.Uint32())
		}
		if r := h.runWith(bytes.NewReader(in), "exec", "debian", "--", "cat"); r.code != 0 || r.out != string(in) {
			t.Errorf("cat changed its input: exit %d, %d bytes of %d, %s", r.code, len(r.out), len(in), r.err)
		}
		if r := h.run("exec", "debian", "--", "sh", "-c", "echo out; echo err >&2"); r.out != "out\n" || r.err != "err\n" {
			t.Error(r)
		}
		if r := h.run("exec", "debian", "--", "printf", "[%s]", "a", "", "b c", "ü\x01", "-n", "--"); r.out != "[a][][b c][ü\x01][-n][--]" {
			t.Error(r)
		}
		// A command that does not read its input does not block, nor does lsub.
		if r := h.runWith(bytes.NewReader(in), "exec", "debian", "--", "true"); r.code != 0 {
			t.Error(r)
		}
		// A background process that keeps stdout open does not block the command.
		if r := h.run("exec", "debian", "--", "sh", "-c", "sleep 1000 & echo done"); r.out != "done\n" {
			t.Error(r)
		}
	})
	t.Run("piped input at a terminal", func(t *testing.T) {
		// Each read sees the end, also that of a shell which changes the terminal's mode.
		for _, command := range [][]string{{"bash"}, {"sh", "-c", "cat; cat; cat"}} {
			r := h.runWith(strings.NewReader("echo hi there\n"), append([]string{"exec", "-t", "debian", "--"}, command...)...)
			if r.code != 0 || !strings.Contains(r.out, "hi there") {
				t.Error(r)
			}
		}
	})
	t.Run("limits", func(t *testing.T) {
		// As systemd has them for a login.
		if out := h.ok(t, "exec", "debian", "--", "sh", "-c", "ulimit -Sn; ulimit -Hn"); out != "1024\n524288" {
			t.Errorf("files: %s", out)
		}
		h.sh(t, "debian", "echo 'root - nofile 3000' >/etc/security/limits.d/e2e.conf")
		if out := h.sh(t, "debian", "ulimit -Sn; ulimit -Hn; rm /etc/security/limits.d/e2e.conf"); out != "3000\n3000" {
			t.Errorf("files, by limits.d: %s", out)
		}
	})
	t.Run("user, folder, environment", func(t *testing.T) {
		r := h.run("exec", "-u", "nobody", "--cd", "/tmp", "--env", "A=b", "--env", "EMPTY=", "debian", "--", "sh", "-c", "id -un; pwd; env")
		for _, want := range []string{"nobody\n/tmp\n", "\nA=b\n", "\nEMPTY=\n"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("%q is missing: %s", want, r)
			}
		}
		h.fails(t, 125, []string{"nosuchuser"}, "exec", "-u", "nosuchuser", "debian", "--", "true")
		h.fails(t, 125, []string{"/no/such/folder"}, "exec", "--cd", "/no/such/folder", "debian", "--", "true")
	})
	t.Run("odd names and long lists", func(t *testing.T) {
		h.fails(t, 127, []string{`command not found: "./x\xff"`}, "exec", "debian", "--", "./x\xff")
		h.fails(t, 125, []string{`no folder "/\xff"`, "lsub: hint: "}, "exec", "--cd", "/\xff", "debian", "--", "true")
		many := []string{"exec", "debian", "--", "sh", "-c", "echo $#", "sh"}
		for range 1800 {
			many = append(many, strings.Repeat("a", 1000))
		}
		if out := h.ok(t, many...); out != "1800" {
			t.Errorf("1800 arguments arrive as %s", out)
		}
	})
	// Special files in the place of a distro's files do not block commands.
	t.Run("hostile files", func(t *testing.T) {
		for _, file := range []string{"mkfifo /etc/environment", "ln -s /dev/zero /etc/environment"} {
			h.sh(t, "debian", "rm -f /etc/environment; "+file)
			if out := h.ok(t, "exec", "debian", "--", "echo", "fine"); out != "fine" {
				t.Errorf("%s: %s", file, out)
			}
		}
		h.sh(t, "debian", "rm /etc/environment")
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				if r := h.run("exec", "debian", "--", "sh", "-c", "echo $((6*7))"); r.out != "42\n" {
					t.Error(r)
				}
			})
		}
		wg.Wait()
	})
	t.Run("bulk", func(t *testing.T) {
		if out := h.run("exec", "debian", "--", "head", "-c", "100000000", "/dev/zero"); len(out.out) != 100000000 || out.code != 0 {
			t.Errorf("%d bytes, exit %d, %s", len(out.out), out.code, out.err)
		}
	})
}

func TestSystemd(t *testing.T) {
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) {
			h := debian(t)
			name := "debian"
			if suite != "trixie" {
				name = suite
				h.ok(t, "install", "debian:"+suite, "--name", name, "--user", "ann")
				t.Cleanup(func() { h.ok(t, "unregister", "--yes", name) })
			}
			if out := h.sh(t, name, "systemctl is-system-running --wait || { systemctl --failed; false; }"); out != "running" {
				t.Errorf("is-system-running: %s", out)
			}
			if out := h.sh(t, name, "cat /proc/1/comm; cat /proc/self/cgroup; stat -fc %T /sys/fs/cgroup"); out != "systemd\n0::/.lsub\ncgroup2fs" {
				t.Errorf("init and groups: %s", out)
			}
			// Emulated, the VM boots on one processor and starts the others later.
			if out := h.sh(t, name, "nproc"); out != fmt.Sprint(runtime.NumCPU()) {
				t.Errorf("nproc: %s; this machine has %d", out, runtime.NumCPU())
			}
			if suite == "bookworm" { // installed with a user
				if out := h.ok(t, "exec", name, "--", "sh", "-c", "id -un; systemctl --user is-system-running --wait; sudo id -un"); out != "ann\nrunning\nroot" {
					t.Errorf("the user's session: %s", out)
				}
			}
			if out := h.ok(t, "-d", name, "-u", "root", "--", "systemctl --user is-system-running --wait"); out != "running" {
				t.Errorf("root's session: %s", out)
			}
		})
	}
}

// A service gets a signal and the time to stop. Its last writes survive the stop of the
// distro and of the VM.
func TestStop(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", `cat >/etc/systemd/system/polite.service <<'UNIT'
[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/sh -c 'sleep 0.2; echo stopped politely >/root/polite'
UNIT
rm -f /root/polite; systemctl start polite; sync; echo kept >/root/kept`)
	h.ok(t, "stop", "debian")
	if out := h.ok(t, "list", "--running", "-q"); strings.Contains(out, "debian") {
		t.Errorf("debian runs after its stop: %s", out)
	}
	if out := h.sh(t, "debian", "cat /root/polite /root/kept"); out != "stopped politely\nkept" {
		t.Errorf("after the stop: %q", out)
	}
	h.sh(t, "debian", "rm /root/polite; systemctl start polite; echo more >>/root/kept")
	h.ok(t, "shutdown")
	if out := h.sh(t, "debian", "cat /root/polite /root/kept; rm /etc/systemd/system/polite.service"); out != "stopped politely\nkept\nmore" {
		t.Errorf("after the shutdown: %q", out)
	}
}

func TestNetwork(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends nginx >/dev/null")
	if out := h.sh(t, "debian", "systemctl is-active nginx; ss -ltn | grep -c ':80 '"); out != "active\n2" { // IPv4 and IPv6
		t.Errorf("nginx: %s", out)
	}
	if out := h.sh(t, "debian", "cat /sys/class/net/eth0/mtu"); out != "65520" {
		t.Errorf("mtu %s", out)
	}
	if out := h.sh(t, "debian", "getent hosts no-such-name.invalid || echo none"); out != "none" {
		t.Errorf("a name that does not exist: %s", out)
	}
	// A program with the name of a network manager takes the address that all distros share.
	h.sh(t, "debian", "printf '#!/bin/sh\nip addr flush dev eth0\necho done\nread end\n' >/tmp/connmand; chmod 755 /tmp/connmand")
	s := h.serve(t, "debian", "/tmp/connmand")
	s.line()
	within(t, quick, "the address is put back", func() bool {
		return strings.Contains(h.sh(t, "debian", "ip -4 addr show dev eth0; ip route"), "default via")
	})
	if log := h.ok(t, "logs"); !strings.Contains(log, "connmand in debian") {
		t.Errorf("the log does not name who took the address:\n%s", log)
	}
	if out := h.sh(t, "debian", "getent hosts gateway.lsub.internal | wc -l"); out != "1" {
		t.Errorf("names after the repair: %s", out)
	}
}

func TestListAndStatus(t *testing.T) {
	h := debian(t)
	h.ok(t, "start", "debian")
	if out := h.ok(t, "list", "--json"); !strings.Contains(out, `"debian"`) {
		t.Errorf("list --json: %s", out)
	}
	for _, args := range [][]string{{"list"}, {"list", "-v"}, {"status"}, {"status", "--json"}, {"logs"}, {"logs", "debian"}, {"version"}, {"version", "--json"}} {
		if out := h.ok(t, args...); out == "" {
			t.Errorf("lsub %v says nothing", args)
		}
	}
	// A second install of an image is a snapshot; its removal does not affect the first one.
	h.ok(t, "install", "debian", "--name", "second")
	h.sh(t, "second", "echo mine >/root/mine")
	h.sh(t, "debian", "test ! -e /root/mine")
	h.ok(t, "set-default", "second")
	if out := h.ok(t, "--", "hostname"); out != "second" {
		t.Errorf("the default distro is %s", out)
	}
	h.ok(t, "set-default", "debian")
	h.fails(t, 125, []string{"--yes"}, "unregister", "second")
	h.ok(t, "unregister", "--yes", "second")
	h.fails(t, 125, []string{"second"}, "exec", "second", "--", "true")
	h.fails(t, 125, []string{"lsub: hint: "}, "exec", "debain", "--", "true")
}
