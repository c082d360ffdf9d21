package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/agent/listeners"
	"github.com/lsub/lsub/guest/agent/tcredirect"
	"github.com/lsub/lsub/guest/guestv1"
)

// A distro that commands or connections from the host use is not idle, and not
// worth a look: this one has nothing to look at.
func TestIdleInUse(t *testing.T) {
	d := &distro{}
	if !d.beginSession() || !d.acquire(&d.forwards) {
		t.Fatal("a distro that runs cannot be used")
	}
	long := time.Now().Add(-time.Hour)
	for _, leave := range []func(){d.endSession, func() { d.release(&d.forwards) }} {
		if got := d.idleFor(); got != 0 {
			t.Errorf("idle for %v while it is in use", got)
		}
		d.idleSince = long // whatever it was before
		if d.stopIdle(time.Minute) {
			t.Error("stopped while it is in use")
		}
		d.idleSince = time.Time{}
		leave()
		if inUse := d.sessions+d.forwards > 0; inUse != d.idleSince.IsZero() {
			t.Errorf("%d commands, %d connections: idle since %v", d.sessions, d.forwards, d.idleSince)
		}
	}
	if since := time.Since(d.idleSince); since > time.Minute {
		t.Errorf("idle for %v when the last has just left", since)
	}
	if d.beginSession(); !d.idleSince.IsZero() {
		t.Error("idle while a command runs")
	}
	d.endSession()
	d.stopping = true
	if d.beginSession() || d.acquire(&d.forwards) || d.sessions != 0 || d.forwards != 0 {
		t.Error("one that stops can be used")
	}
}

// A process that was left behind keeps the distro up, and one look finds it.
func TestIdleOccupied(t *testing.T) {
	d := &distro{
		a: &Agent{listening: func([]*listeners.Netns) ([]listeners.Listener, error) { return nil, nil }}, spec: &guestv1.Distro{Id: "none"}, pid: 1,
		group: fakeGroup(t, map[string]string{
			cgroup.InsideGroup + "/cgroup.events":                                     "populated 1\n",
			cgroup.InsideGroup + "/cgroup.procs":                                      "",
			cgroup.InsideGroup + "/system.slice/cgroup.events":                        "populated 1\n",
			cgroup.InsideGroup + "/system.slice/cgroup.procs":                         "",
			cgroup.InsideGroup + "/system.slice/a.service/cgroup.events":              "populated 1\n",
			cgroup.InsideGroup + "/system.slice/a.service/cgroup.procs":               "77\n",
			cgroup.InsideGroup + "/system.slice/systemd-logind.service/cgroup.events": "populated 1\n",
			cgroup.InsideGroup + "/system.slice/systemd-logind.service/cgroup.procs":  "78\n",
		}),
	}
	d.idleSince = time.Now().Add(-time.Hour)
	if got := d.idleFor(); got != 0 || !d.idleSince.IsZero() {
		t.Errorf("idle for %v with a service", got)
	}
	if got := d.reasons(); len(got) != 1 || got[0] != "service a" {
		t.Errorf("reasons %q", got)
	}
	d.group = fakeGroup(t, map[string]string{cgroup.InsideGroup + "/cgroup.events": "populated 1\n", cgroup.InsideGroup + "/cgroup.procs": "1\n"})
	if d.idleFor(); d.idleSince.IsZero() {
		t.Error("not idle with nothing but its init")
	}
}

// Connections by the fast path keep a distro up, and it is idle from the look on
// that finds none.
func TestIdleFastPath(t *testing.T) {
	count := map[string]int{"web": 2}
	a := &Agent{
		listening: func([]*listeners.Netns) ([]listeners.Listener, error) { return nil, nil },
		clients:   func(first uint16) (map[string]int, error) { return count, nil },
	}
	files := map[string]string{cgroup.InsideGroup + "/cgroup.events": "populated 1\n", cgroup.InsideGroup + "/cgroup.procs": "1\n"}
	d := &distro{a: a, spec: &guestv1.Distro{Id: "web"}, pid: 1, group: fakeGroup(t, files)}
	if d.idleFor(); d.idleSince.IsZero() {
		t.Error("not idle where there is no fast path")
	}
	a.fastPath.redirect.Store(&tcredirect.Redirect{})
	if got := d.idleFor(); got != 0 || !d.idleSince.IsZero() {
		t.Errorf("idle for %v with connections", got)
	}
	d.forwards = 1
	if got := d.reasons(); len(got) != 1 || got[0] != "connections from the host: 3" {
		t.Errorf("reasons %q", got)
	}
	d.forwards, count = 0, map[string]int{"another": 1}
	if d.idleFor(); d.idleSince.IsZero() {
		t.Error("not idle without connections")
	}
	count["own"] = 1
	own := &distro{a: a, spec: &guestv1.Distro{Id: "own", Isolated: true}}
	if n := own.fastPathClients(); n != 0 {
		t.Errorf("%d connections lead into a network of its own", n)
	}
}

// fakeGroup is a control group whose files are ordinary ones.
func fakeGroup(t *testing.T, files map[string]string) *cgroup.Group {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return cgroup.At(dir)
}
