package agent

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/agent/listeners"
	"github.com/lsub/lsub/guest/guestv1"
)

// TestIdleHour has an hour pass: a distro with a web server is there still, as are
// one whose process merely listens and one that a client of the host's is
// connected to; one that does nothing is stopped after its five minutes.
func TestIdleHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{log: slog.New(slog.DiscardHandler)}
		a.listening = func([]*listeners.Netns) ([]listeners.Listener, error) {
			return []listeners.Listener{
				{Network: listeners.TCP, Addr: netip.MustParseAddrPort("[::]:80"), Distro: "apache", Process: "apache2", Group: "system.slice/apache2.service"},
				{Network: listeners.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:8000"), Distro: "listens", Process: "python3", Group: ".lsub"},
				{Network: listeners.UDP, Addr: netip.MustParseAddrPort("0.0.0.0:68"), Distro: "quiet", Process: "systemd-network", Group: "system.slice/systemd-networkd.service"},
			}, nil
		}
		start := func(id string, services ...string) *distro {
			d := &distro{a: a, spec: &guestv1.Distro{Id: id, Name: id}, gone: make(chan struct{}), reconfigured: make(chan struct{}, 1)}
			files := map[string]string{cgroup.InsideGroup + "/cgroup.events": "populated 1\n"}
			for _, s := range append(services, "systemd-journald") {
				files[cgroup.InsideGroup+"/system.slice/"+s+".service/cgroup.events"] = "populated 1\n"
				files[cgroup.InsideGroup+"/system.slice/"+s+".service/cgroup.procs"] = "1\n"
			}
			d.group = fakeGroup(t, files)
			go d.watchIdle()
			return d
		}
		apache, listens, quiet, used := start("apache", "apache2"), start("listens"), start("quiet"), start("used")
		used.acquire(&used.forwards)
		all := []*distro{apache, listens, quiet, used}
		stopped := func() (ids []string) {
			for _, d := range all {
				if d.isStopping() {
					ids = append(ids, d.spec.Id)
				}
			}
			return ids
		}
		time.Sleep(idleDefault - time.Second)
		synctest.Wait()
		if got := stopped(); len(got) > 0 {
			t.Errorf("stopped too early: %v", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := stopped(); !slices.Equal(got, []string{"quiet"}) {
			t.Errorf("after an hour these are stopped: %v, reasons of the others: %q %q %q", got, apache.reasons(), listens.reasons(), used.reasons())
		}
		// The client goes, and so does the distro, five minutes later.
		used.release(&used.forwards)
		time.Sleep(idleDefault - time.Second)
		synctest.Wait()
		if used.isStopping() {
			t.Error("stopped too early after its last connection")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := stopped(); !slices.Equal(got, []string{"quiet", "used"}) {
			t.Errorf("at the end these are stopped: %v", got)
		}
		for _, d := range all {
			close(d.gone)
		}
	})
}

// TestRemoveStale replaces a socket that nobody serves, and nothing else.
func TestRemoveStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := removeStale(path); err == nil {
		t.Error("a socket that somebody listens on is removed")
	}
	l.Close()
	if err := removeStale(path); err != nil || distrofile.Exists(path) {
		t.Errorf("a socket that nobody listens on stays: %v", err)
	}
	if err := removeStale(path); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeStale(path); err != nil || !distrofile.Exists(path) {
		t.Errorf("a file is taken for a socket: %v", err)
	}
}
