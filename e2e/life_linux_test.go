package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/netstack/guesttcp"
)

// listed is a distro in "lsub list --json".
type listed struct {
	Name      string
	ID, Arch  string
	Default   bool
	State     string
	KeptUpBy  []string `json:"kept_up_by"`
	Snapshots []struct{ Name string }
	PIDsMax   int `json:"pids_max"`
}

func (h *host) list(t *testing.T) map[string]listed {
	t.Helper()
	var list []listed
	if err := json.Unmarshal([]byte(h.ok(t, "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	byName := map[string]listed{}
	for _, d := range list {
		byName[d.Name] = d
	}
	return byName
}

// becomes polls until cond holds; there is no event for it.
func becomes(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, within)
		}
	}
}

// profile writes the host's profile, before its VM starts.
func (h *host) profile(t *testing.T, text string) {
	t.Helper()
	dir := filepath.Join(h.dir, "home", "profiles", "default")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "profile.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestClone copies a running distro that has its own subvolume, and switches between
// snapshots of it.
func TestClone(t *testing.T) {
	h := debian(t)
	h.ok(t, "clone", "debian", "origin")
	// systemd-tmpfiles creates subvolumes for lines of type v, such as that of
	// /var/lib/machines.
	h.sh(t, "origin", `
		printf 'v /srv/sub 0755 - - -\nv /srv/sub/below 0700 - - -\n' >/etc/tmpfiles.d/sub.conf
		systemd-tmpfiles --create sub.conf
		test "$(stat -c %i /srv/sub)" = 256
		test "$(stat -c %i /srv/sub/below)" = 256
		echo one >/srv/file; echo one >/srv/sub/file; echo one >/srv/sub/below/file`)
	const all = "cat /srv/file /srv/sub/file /srv/sub/below/file | tr '\\n' ' '"
	check := func(distro, want string) {
		t.Helper()
		if got := h.sh(t, distro, all); got != want {
			t.Errorf("%s has %q, want %q", distro, got, want)
		}
	}
	h.ok(t, "snapshot", "create", "origin", "first")
	id := h.sh(t, "origin", "cat /etc/machine-id")
	h.sh(t, "origin", "for f in /srv/file /srv/sub/file /srv/sub/below/file; do echo two >$f; done")
	h.ok(t, "clone", "origin", "copy")
	h.ok(t, "clone", "--snapshot", "first", "origin", "older")
	h.ok(t, "snapshot", "restore", "--yes", "origin", "first")
	check("origin", "one one one")
	check("copy", "two two two")
	check("older", "one one one")
	if got := h.sh(t, "origin", "cat /etc/machine-id"); got != id {
		t.Errorf("the machine id was %s, after going back it is %s", id, got)
	}
	if got := h.sh(t, "copy", "cat /etc/machine-id; hostname"); strings.HasPrefix(got, id) || !strings.HasSuffix(got, "\ncopy") {
		t.Errorf("machine id and host name of the copy: %s; the first has %s", got, id)
	}

	// A snapshot survives changes, and is removed with its distro.
	h.ok(t, "unregister", "--yes", "origin")
	check("copy", "two two two")
	h.ok(t, "rename", "copy", "renamed")
	h.ok(t, "stop", "renamed")
	if got := h.sh(t, "renamed", "hostname"); got != "renamed" {
		t.Errorf("host name %s after the new name", got)
	}
	h.ok(t, "unregister", "--yes", "renamed")
	h.ok(t, "unregister", "--yes", "older")
}

// TestSnapshotOfWriter takes snapshots while a process writes pairs of files: each pair is
// complete or the older one.
func TestSnapshotOfWriter(t *testing.T) {
	h := debian(t)
	h.ok(t, "clone", "debian", "writer")
	defer h.run("unregister", "--yes", "writer")
	h.sh(t, "writer", `echo 0 >/srv/a; echo 0 >/srv/b; nohup sh -c 'i=0; while :; do i=$((i+1)); for f in a b; do echo $i >/srv/.new; mv /srv/.new /srv/$f; done; done' >/dev/null 2>&1 &`)
	const next = "a=$(cat /srv/a); while test $(cat /srv/a) = $a; do :; done"
	for _, name := range []string{"s1", "s2", "s3"} {
		h.sh(t, "writer", next)
		h.ok(t, "snapshot", "create", "writer", name)
	}
	// It continues.
	h.sh(t, "writer", next)
	last := 0
	for _, name := range []string{"s1", "s2", "s3"} {
		h.ok(t, "clone", "--snapshot", name, "writer", "at-"+name)
		a, b := 0, 0
		if err := json.Unmarshal([]byte("["+h.sh(t, "at-"+name, `echo "$(cat /srv/a),$(cat /srv/b)"`)+"]"), &[]any{&a, &b}); err != nil {
			t.Fatal(err)
		}
		if a != b && a != b+1 || a <= last {
			t.Errorf("snapshot %s holds a=%d b=%d after %d", name, a, b, last)
		}
		last = a
		h.ok(t, "unregister", "--yes", "at-"+name)
	}
}

// TestIdle: idle distros stop, busy ones stay, and the VM stops when none is left.
func TestIdle(t *testing.T) {
	h := freshWith(t, "debian")
	h.profile(t, "idle:\n  vm: 3s\n  distro: 3s\n")
	state := func(name string) string { return h.list(t)[name].State }
	keptUpBy := func(name string) string { return strings.Join(h.list(t)[name].KeptUpBy, "; ") }

	h.sh(t, "debian", `nohup sleep 1000 >/dev/null 2>&1 &`)
	for _, n := range []string{"quiet", "server", "daemon"} {
		h.ok(t, "clone", "debian", n)
	}
	h.installTiny(t)
	h.ok(t, "manage", "--idle", "1s", "tiny")
	session := h.serve(t, "tiny", "cat")
	h.ok(t, "clone", "debian", "visited")
	h.ok(t, "manage", "--idle", "never", "visited")
	visitor := h.visit(t, "visited", 7778)
	h.ok(t, "manage", "--idle", "1s", "visited")
	h.ok(t, "manage", "--idle", "never", "quiet")
	h.ok(t, "start", "quiet")
	h.sh(t, "server", `systemd-run --quiet --unit=listen --socket-property=ListenStream=127.0.0.1:7777 --socket-property=Accept=yes cat`)
	h.sh(t, "daemon", `systemd-run --quiet --unit=worker sleep 1000`)

	// The distros with the shortest idle time have been in use before this one starts.
	session.next()
	h.ok(t, "clone", "debian", "idle")
	h.ok(t, "start", "idle")
	becomes(t, "an idle distro stops", time.Minute, func() bool { return state("idle") == "stopped" })
	for name, want := range map[string]string{"debian": "process sleep", "server": "listens on tcp 127.0.0.1:7777", "daemon": "service worker"} {
		if got := keptUpBy(name); state(name) != "running" || !strings.Contains(got, want) {
			t.Errorf("%s is %s, kept up by %q, want %q", name, state(name), got, want)
		}
	}
	for name, want := range map[string]string{"tiny": "a command runs", "visited": "connections from the host: 1"} {
		if got := keptUpBy(name); state(name) != "running" || got != want {
			t.Errorf("%s is %s, kept up by %q, want %q and nothing else", name, state(name), got, want)
		}
	}
	if err := echoes(visitor); err != nil {
		t.Errorf("the connection that keeps a distro up: %v", err)
	}
	if !answers("127.0.0.1:7777") {
		t.Error("what listens in a distro that stays up does not answer on the host any more")
	}
	if state("quiet") != "running" {
		t.Error("a distro that is never idle was stopped")
	}
	r := h.ok(t, "list", "-v")
	for _, want := range []string{"service worker", "process sleep", "a command runs", "connections from the host: 1"} {
		if !strings.Contains(r, want) {
			t.Errorf("list -v says nothing of %q:\n%s", want, r)
		}
	}

	// The processes that kept them up end.
	h.sh(t, "debian", "pkill -x sleep")
	h.sh(t, "server", "systemctl stop listen.socket")
	h.sh(t, "daemon", "systemctl stop worker")
	visitor.Close()
	session.in.Close()
	for _, name := range []string{"visited", "tiny"} {
		becomes(t, name+" stops without who used it", 30*time.Second, func() bool { return state(name) == "stopped" })
	}
	h.ok(t, "manage", "--idle", "1s", "quiet")
	becomes(t, "the VM goes off", 2*time.Minute, func() bool { return strings.Contains(h.ok(t, "status"), "off") })

	// It stopped in order, and comes back.
	if r := h.run("exec", "debian", "--", "true"); r.code != 0 || strings.Contains(r.err, "last VM") {
		t.Error(r)
	}
}

// visitedServer accepts connections until one comes by the fast path (docs/adr/0022). Then it
// closes its listener, and echoes that connection. It tells each client its port.
const visitedServer = `use IO::Socket::INET;
my ($port, $direct) = @ARGV;
my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $port, Listen => 5) or die $@;
my $c;
do { $c = $l->accept or die $!; syswrite $c, $c->peerport . "\n" } until $c->peerport >= $direct;
close $l;
while (sysread $c, my $b, 4096) { syswrite $c, $b }
`

// visit returns a connection that alone keeps the distro up. Its server has no listener any
// more. Its process name is that of a base service, whose listeners do not count either.
func (h *host) visit(t *testing.T, distro string, port int) net.Conn {
	t.Helper()
	h.sh(t, distro, fmt.Sprintf("cat >/srv/server <<'END'\n%sEND\nsystemd-run --quiet --unit=lsub-visited perl /srv/server %d %d", visitedServer, port, guesttcp.FirstPort))
	var conn net.Conn
	becomes(t, "a connection goes by the fast path", time.Minute, func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		from := 0
		if _, err := fmt.Fscanln(c, &from); err != nil || from < guesttcp.FirstPort {
			c.Close()
			return false
		}
		conn = c
		return true
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestAutostart starts a distro with the VM.
func TestAutostart(t *testing.T) {
	h := fresh(t)
	h.installTiny(t)
	h.ok(t, "clone", "tiny", "other")
	h.ok(t, "manage", "--autostart", "vm", "other")
	h.ok(t, "shutdown")
	h.ok(t, "exec", "tiny", "--", "true") // starts the VM
	becomes(t, "a distro starts with the VM", time.Minute, func() bool { return h.list(t)["other"].State == "running" })
}
