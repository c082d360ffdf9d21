package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
)

// fakeCgroup is a group whose files are ordinary ones.
func fakeCgroup(t *testing.T, files map[string]string) *cgroup {
	t.Helper()
	c := &cgroup{path: t.TempDir()}
	c.inside = filepath.Join(c.path, insideGroup)
	if err := os.Mkdir(c.inside, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(c.path, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.path, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestLimit(t *testing.T) {
	c := fakeCgroup(t, nil)
	for _, l := range []struct {
		limits *guestv1.Limits
		want   string
	}{
		{&guestv1.Limits{MemoryMax: 512 << 20, CpuMax: 1500, PidsMax: 100}, "536870912 0 150000 100000 100"},
		{&guestv1.Limits{CpuMax: minCPU}, "max max 1000 100000 max"},
		{nil, "max max max 100000 max"},
	} {
		for _, dir := range []string{c.path, c.inside} {
			for _, f := range []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"} {
				if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := c.limit(l.limits); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{c.path, c.inside} {
			var got []string
			for _, f := range []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"} {
				b, _ := os.ReadFile(filepath.Join(dir, f))
				got = append(got, string(b))
			}
			if s := strings.Join(got, " "); s != l.want {
				t.Errorf("%v: %s, want %s", l.limits, s, l.want)
			}
		}
	}
	// A kernel without a controller: fine, unless the limit is wanted.
	bare := &cgroup{path: "/proc/self/nothing", inside: "/proc/self/nothing"}
	if err := bare.limit(nil); err != nil {
		t.Error(err)
	}
	if err := bare.limit(&guestv1.Limits{PidsMax: 1}); err == nil {
		t.Error("a limit that cannot be set is taken for set")
	}
}

func TestCheckLimits(t *testing.T) {
	for _, bad := range []*guestv1.Limits{{MemoryMax: -1}, {CpuMax: -1}, {PidsMax: -1}, {CpuMax: minCPU - 1}} {
		if checkDistro(&guestv1.Distro{Id: "a", Limits: bad}) == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if err := checkLimits(nil); err != nil {
		t.Error(err)
	}
}

func TestWhyKilled(t *testing.T) {
	d := &distro{spec: &guestv1.Distro{Name: "d"}, limits: &guestv1.Limits{MemoryMax: 512 << 20}}
	if why := d.whyKilled(pressure{kills: 1}, pressure{kills: 1, forks: 3}); why != "" {
		t.Errorf("nothing was killed: %s", why)
	}
	if why := d.whyKilled(pressure{}, pressure{kills: 1, own: 1}); why != "distro d is out of memory (its limit is 512 MiB)" {
		t.Error(why)
	}
	if why := d.whyKilled(pressure{own: 1}, pressure{kills: 1, own: 1}); !strings.HasPrefix(why, "the VM is out of memory (it has ") {
		t.Error(why)
	}
}

func TestPressure(t *testing.T) {
	c := fakeCgroup(t, map[string]string{
		"memory.events":                      "low 0\nhigh 0\nmax 5\noom 2\noom_kill 3\n",
		"memory.events.local":                "oom 0\noom_kill 3\n",
		insideGroup + "/memory.events.local": "oom 2\n",
		insideGroup + "/pids.events.local":   "max 7\n",
		"memory.current":                     "1000\n",
		"memory.stat":                        "anon 500\nfile 300\nshmem 100\nslab_reclaimable 50\n",
		"pids.max":                           "10\n",
		"pids.current":                       "10\n",
	})
	if got, want := c.pressure(), (pressure{kills: 3, own: 2, forks: 7}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := c.memoryInUse(); got != 750 { // all but the page cache and what can be freed
		t.Errorf("%d bytes in use", got)
	}
	if !c.full() {
		t.Error("not full with 10 of 10")
	}
	os.WriteFile(filepath.Join(c.path, "pids.max"), []byte("max\n"), 0)
	if c.full() {
		t.Error("full without a limit")
	}
}

func TestReserve(t *testing.T) {
	for _, c := range []struct{ total, want uint64 }{{256 << 20, 64 << 20}, {8 << 30, 256 << 20}} {
		if got := reserve(c.total); got != c.want {
			t.Errorf("of %d: %d, want %d", c.total, got, c.want)
		}
	}
}
