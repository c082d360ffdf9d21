package e2e

import (
	"strings"
	"testing"
)

// expired is apt's error for a mirror that is out of date. apt refuses such package lists,
// and so does lsub by default.
const expired = "is expired (invalid since"

// All Debian suites with systemd boot completely, and all of systemd works in them.
func TestSuites(t *testing.T) {
	h := debian(t)
	// Each one is shut down from inside in another way.
	for suite, off := range map[string]string{
		"bullseye": "kill -s RTMIN+4 1", "bookworm": "systemctl reboot", "trixie": "systemctl poweroff", "sid": "systemctl poweroff",
	} {
		t.Run(suite, func(t *testing.T) {
			r := h.run("install", "debian:"+suite, "--name", suite)
			if suite == "sid" && r.code != 0 && strings.Contains(r.err, expired) {
				t.Logf("the mirror is out of date, which lsub says, and how to take it as it is: %s", r.err)
				r = h.run("install", "debian:sid?check-valid-until=no", "--name", suite)
			}
			if r.code != 0 {
				t.Fatal(r)
			}
			testSuite(t, h, suite)
			testUserManager(t, h, suite)
			testPowerOff(t, h, suite, off)
			h.ok(t, "unregister", "--yes", suite)
		})
	}
}

// testSuite tests a newly installed distro.
func testSuite(t *testing.T, h *host, name string) {
	if out := h.sh(t, name, "systemctl is-system-running --wait || systemctl --failed"); out != "running" {
		t.Errorf("is-system-running: %s", out)
	}
	if out := h.sh(t, name, "systemctl list-units --failed --no-legend --plain"); out != "" {
		t.Errorf("failed units: %s", out)
	}
	// The journal, and logins.
	h.sh(t, name, `systemd-cat -t probe echo 'a line'; journalctl --sync; journalctl -q -t probe -o cat | grep -x 'a line'`)
	if out := h.sh(t, name, "useradd --create-home joe; loginctl enable-linger joe; loginctl list-users --no-legend; loginctl show-user -p Name joe"); !strings.Contains(out, "1000 joe") || !strings.HasSuffix(out, "Name=joe") {
		t.Errorf("loginctl: %s", out)
	}
	// A timer fires. The fifo's reader waits for it, however long it takes.
	h.sh(t, name, `mkfifo /root/fired; systemd-run -q --on-active=1s --timer-property=AccuracySec=50ms sh -c 'echo timer >/root/fired'; grep -x timer /root/fired`)
}

// testUserManager tests an ordinary user's own systemd.
func testUserManager(t *testing.T, h *host, name string) {
	out := h.ok(t, "exec", "-u", "joe", name, "--", "sh", "-ec", `systemctl --user is-system-running --wait
systemd-run --user -q --wait --pipe echo in a service
systemd-run --user -q --scope echo in a scope
mkfifo ~/fired; systemd-run --user -q --on-active=1s --timer-property=AccuracySec=50ms sh -c 'echo a timer >~/fired'; cat ~/fired
unshare -Ur id -u
timeout 60 sh -c 'until loginctl list-sessions --no-legend | grep -wo joe; do sleep 0.1; done | head -1'`)
	if want := "running\nin a service\nin a scope\na timer\n0\njoe"; out != want {
		t.Errorf("the user's systemd: %s\nwant %s", out, want)
	}
}

// testPowerOff tests a shutdown from inside. It stops the distro's services in order, and the
// next command waits for its end and starts the distro again.
func testPowerOff(t *testing.T, h *host, name, off string) {
	h.sh(t, name, `cat >/etc/systemd/system/last-words.service <<'X'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo bye >>/root/said'
X
systemctl daemon-reload; systemctl start last-words`)
	r := h.run("exec", "-u", "root", name, "--", "bash", "-c", off+"; sleep 1000")
	if r.code == 0 || r.code == 125 {
		t.Errorf("%s: %s", off, r)
	}
	if out := h.sh(t, name, "systemctl is-system-running --wait; cat /root/said"); out != "running\nbye" {
		t.Errorf("after %s: %q", off, out)
	}
}
