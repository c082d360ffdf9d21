package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// another returns an additional distro of the shared host. It is removed with the test.
func another(t *testing.T, h *host, name string, args ...string) string {
	t.Helper()
	h.ok(t, append([]string{"install", "debian", "--name", name}, args...)...)
	t.Cleanup(func() { h.run("unregister", "--yes", name) })
	return name
}

// warnings returns the lines of stderr with "warning".
func (r result) warnings() (list []string) {
	for line := range strings.Lines(r.err) {
		if _, text, ok := strings.Cut(strings.TrimSpace(line), "warning: "); ok {
			list = append(list, text)
		}
	}
	return list
}

func TestWSLConf(t *testing.T) {
	own := *debian(t)
	h := &own
	h.env = append(slices.Clip(h.env), "TZ=Pacific/Chatham")
	d := another(t, h, "Conf", "--user", "ann")
	if out := h.ok(t, "exec", d, "--", "sh", "-c", "id -un; hostname; umask; readlink /etc/localtime; cat /proc/1/comm"); out != "ann\nconf\n0022\n/usr/share/zoneinfo/Pacific/Chatham\nsystemd" {
		t.Errorf("without wsl.conf: %s", out)
	}
	h.sh(t, d, `cat >/etc/wsl.conf <<'CONF'
[boot]
command = "echo said by the command; id -u; sleep infinity"
initTimeout = soon
[network]
hostname = Box
generateHosts = false
generateResolvConf = false
[time]
useWindowsTimezone = false
[filesystem]
umask = 0027
[user]
default = nobody
[wsl2]
memory = 1GB
CONF
ln -sf /usr/share/zoneinfo/Europe/Berlin /etc/localtime
echo "nameserver 192.0.2.1" >/etc/resolv.conf`)
	h.ok(t, "stop", d)

	r := h.run("exec", d, "--", "sh", "-c", "id -un; hostname; umask; readlink /etc/localtime; grep -c Box /etc/hosts; cat /etc/resolv.conf")
	if want := "ann\nBox\n0027\n/usr/share/zoneinfo/Europe/Berlin\n0\nnameserver 192.0.2.1\n"; r.out != want {
		t.Errorf("with wsl.conf: want %q: %s", want, r)
	}
	want := []string{"Conf: /etc/wsl.conf:3: boot.inittimeout = soon: must be a number of milliseconds", "Conf: /etc/wsl.conf:15: unknown key wsl2.memory"}
	if got := r.warnings(); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("warnings %q, want %q", got, want)
	}
	if got := h.run("exec", d, "--", "true").warnings(); got != nil {
		t.Errorf("told twice: %q", got)
	}
	if out := h.sh(t, d, "systemctl is-system-running --wait; journalctl -o cat -u lsub-boot-command; systemctl show -p ActiveState lsub-boot-command"); !strings.HasPrefix(out, "running\n") ||
		!strings.Contains(out, "said by the command\n0\n") || !strings.HasSuffix(out, "ActiveState=active") {
		t.Errorf("the boot command: %s", out)
	}

	t.Run("default user", func(t *testing.T) {
		// The file takes effect at once. Without a value of its own, wsl.conf's applies.
		h.sh(t, d, "echo >/etc/lsub.conf")
		if out := h.ok(t, "exec", d, "--", "id", "-un"); out != "nobody" {
			t.Errorf("runs as %s", out)
		}
		h.sh(t, d, "printf '[user]\ndefault=gone\n' >/etc/lsub.conf")
		r := h.run("exec", d, "--", "id", "-un")
		if w := r.warnings(); r.out != "nobody\n" || len(w) != 1 ||
			!strings.Contains(w[0], `Conf: /etc/lsub.conf:2: the default user "gone" does not exist, so commands run as nobody; 'lsub manage Conf --set-default-user NAME' sets another`) {
			t.Error(r)
		}
		if out := h.ok(t, "manage", "--json", d); !strings.Contains(out, `"user": "nobody",`) || !strings.Contains(out, `"user_from": "/etc/wsl.conf:13"`) {
			t.Errorf("manage: %s", out)
		}
		if out := h.ok(t, "exec", "-u", "root", d, "--", "id", "-un"); out != "root" {
			t.Errorf("-u root runs as %s", out)
		}
		// With the guest's API, for a running distro.
		id := ""
		var list []struct{ Name, ID string }
		if err := json.Unmarshal([]byte(h.ok(t, "list", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Name == d {
				id = e.ID
			}
		}
		if got := h.call(t, "SetDefaultUser", map[string]any{"id": id, "user": "nobody"}); !strings.Contains(got, `"name":"nobody"`) || !strings.Contains(got, `"uid":65534`) {
			t.Errorf("SetDefaultUser: %s", got)
		}
		if out := h.ok(t, "exec", d, "--", "sh", "-c", "id -un; cat /etc/lsub.conf"); out != "nobody\n[user]\ndefault=nobody" {
			t.Errorf("after SetDefaultUser: %q", out)
		}
		if got := h.call(t, "SetDefaultUser", map[string]any{"id": id, "user": "gone"}); !strings.Contains(got, `no user \"gone\"`) {
			t.Errorf("SetDefaultUser of nobody: %s", got)
		}
		// With the command, for a stopped one.
		h.ok(t, "stop", d)
		h.ok(t, "manage", "--set-default-user", "ann", d)
		if out := h.ok(t, "exec", d, "--", "sh", "-c", "id -un; cat /etc/lsub.conf"); out != "ann\n[user]\ndefault=ann" {
			t.Errorf("after manage of a stopped distro: %q", out)
		}
		h.fails(t, 125, []string{`no user "gone"`}, "manage", "--set-default-user", "gone", d)
	})
	t.Run("initTimeout", func(t *testing.T) { testInitTimeout(t, h, d) })
	t.Run("hostile", func(t *testing.T) {
		h.sh(t, d, "printf '[boot]\nsystemd=false\n' >/etc/lsub.conf") // starts faster
		for _, file := range []string{"mkfifo /etc/wsl.conf", "ln -s /dev/zero /etc/wsl.conf", "truncate -s 1G /etc/wsl.conf", "head -c 200000 /dev/urandom >/etc/wsl.conf", "mkdir /etc/wsl.conf"} {
			h.sh(t, d, "rm -rf /etc/wsl.conf; "+file)
			h.ok(t, "stop", d)
			r := h.run("start", d)
			if r.code != 0 || len(r.warnings()) == 0 || len(r.warnings()) > 22 {
				t.Errorf("%s: %s", file, r)
			}
			h.sh(t, d, "rm -rf /etc/wsl.conf")
		}
		// As Windows' own editor saves it.
		h.sh(t, d, `printf '\377\376[\0n\0e\0t\0w\0o\0r\0k\0]\0\r\0\n\0h\0o\0s\0t\0n\0a\0m\0e\0=\0w\0i\0d\0e\0' >/etc/wsl.conf`)
		h.sh(t, d, "rm /etc/lsub.conf")
		h.ok(t, "stop", d)
		if r := h.run("exec", d, "--", "hostname"); r.out != "wide\n" || !strings.Contains(r.err, "UTF-16") {
			t.Error(r)
		}
	})
	t.Run("tiny init", func(t *testing.T) {
		h.sh(t, d, `cat >/etc/wsl.conf <<'CONF'
[boot]
systemd=false
command=trap 'echo ended >/root/ended; exit' TERM; echo $PPID >/root/began; while :; do sleep 0.1; done
CONF
echo 'tmpfs /srv tmpfs size=1m 0 0' >/etc/fstab; rm -f /root/began /root/ended`)
		h.ok(t, "stop", d)
		r := h.run("exec", "-u", "root", d, "--", "sh", "-c", "cat /proc/1/comm; while [ ! -s /root/began ]; do sleep 0.05; done; cat /root/began; stat -fc %T /srv")
		if r.out != "lsub-init\n1\ntmpfs\n" || r.warnings() != nil {
			t.Error(r)
		}
		if out := h.ok(t, "list", "--json"); !strings.Contains(out, `"init": "tiny"`) {
			t.Errorf("list: %s", out)
		}
		// Processes that the command left run until the stop, which reaches them.
		h.sh(t, d, "echo '/no/such/disk /opt ext4' >/etc/fstab")
		h.ok(t, "stop", d)
		r = h.run("exec", "-u", "root", d, "--", "cat", "/root/ended")
		if w := r.warnings(); r.out != "ended\n" || len(w) != 1 || !strings.Contains(w[0], "/etc/fstab: mount -a: ") || !strings.Contains(w[0], "/no/such/disk") {
			t.Error(r)
		}
		h.sh(t, d, "printf '[automount]\nmountFsTab=false\n' >>/etc/wsl.conf")
		h.ok(t, "stop", d)
		if w := h.run("start", d).warnings(); w != nil {
			t.Errorf("mountFsTab=false: %q", w)
		}
	})
}

// testInitTimeout has commands enter a distro whose systemd is not up: root's, and those of a
// user, whose own systemd would have to wait for the distro's.
func testInitTimeout(t *testing.T, h *host, d string) {
	h.sh(t, d, `cat >/etc/systemd/system/wait.service <<'UNIT'
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until [ -e /root/go ]; do sleep 0.2; done'
[Install]
WantedBy=sysinit.target
UNIT
systemctl enable -q wait
sed -i 's/^initTimeout.*/initTimeout = 500/' /etc/wsl.conf`)
	h.ok(t, "stop", d)
	const isUp = "id -un; test -e /run/lsub/ready && echo up || echo not up"
	r := h.run("exec", "-u", "root", d, "--", "sh", "-c", isUp)
	want := []string{"Conf: /etc/wsl.conf:15: unknown key wsl2.memory", "Conf: systemd is not up after 500ms; commands run all the same"}
	if got := r.warnings(); r.out != "root\nnot up\n" || strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("want warnings %q: %s", want, r)
	}
	start := time.Now()
	r = h.run("exec", d, "--", "sh", "-c", isUp)
	if took := time.Since(start); r.out != "ann\nnot up\n" || r.warnings() != nil || took > 20*time.Second {
		t.Errorf("after %v: %s", took, r)
	}
	if out := h.sh(t, d, "touch /root/go; timeout 60 sh -c 'until [ -e /run/lsub/ready ]; do sleep 0.2; done'; systemctl is-system-running --wait; systemctl disable -q wait"); out != "running" {
		t.Errorf("when nothing holds it up: %s", out)
	}
	if out := h.ok(t, "exec", d, "--", "systemctl", "--user", "is-system-running", "--wait"); out != "running" {
		t.Errorf("the user's session then: %s", out)
	}
}

// call sends a request to the guest as curl would, and returns the answer.
func (h *host) call(t *testing.T, method string, request any) string {
	t.Helper()
	var status struct{ Socket string }
	if err := json.Unmarshal([]byte(h.ok(t, "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: slow, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", status.Socket)
	}}}
	defer client.CloseIdleConnections()
	res, err := client.Post("http://lsub/lsub.guest.v1.Guest/"+method, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Services do not get the variables of commands; login shells keep them.
func TestDistroVariables(t *testing.T) {
	h := debian(t)
	const vars = "env | grep DISTRO_NAME | sort"
	const want = "LSUB_DISTRO_NAME=debian\nWSL_DISTRO_NAME=debian"
	if out := h.ok(t, "exec", "debian", "--", "sh", "-c", vars); out != want {
		t.Errorf("exec: %s", out)
	}
	if out := h.ok(t, "-d", "debian", "--", vars); out != want {
		t.Errorf("a login shell: %s", out)
	}
	if out := h.sh(t, "debian", "systemd-run -q --wait --pipe env | grep -c _DISTRO_NAME || true"); out != "0" {
		t.Errorf("a service has %s of them", out)
	}
	if out := h.sh(t, "debian", "env | grep -c '^WSL_INTEROP' || true"); out != "0" {
		t.Error("WSL_INTEROP names a socket that is not there")
	}
	h.sh(t, "debian", "mkdir -p /etc/default; echo LANG=de_DE.UTF-8 >/etc/default/locale")
	if out := h.ok(t, "exec", "debian", "--", "sh", "-c", "echo $LANG"); out != "de_DE.UTF-8" {
		t.Errorf("LANG=%s", out)
	}
	h.sh(t, "debian", "rm /etc/default/locale")
}
