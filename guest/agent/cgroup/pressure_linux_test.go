package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPressure(t *testing.T) {
	g := fakeGroup(t, map[string]string{
		"memory.events":                      "low 0\nhigh 0\nmax 5\noom 2\noom_kill 3\n",
		"memory.events.local":                "oom 0\noom_kill 3\n",
		InsideGroup + "/memory.events.local": "oom 2\n",
		InsideGroup + "/pids.events.local":   "max 7\n",
		"memory.current":                     "1000\n",
		"memory.stat":                        "anon 500\nfile 300\nshmem 100\nslab_reclaimable 50\n",
		"pids.max":                           "10\n",
		"pids.current":                       "10\n",
	})
	if got, want := g.Pressure(), (Pressure{Kills: 3, OwnLimit: 2, Forks: 7}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := g.MemoryInUse(); got != 750 { // all but the page cache and what can be freed
		t.Errorf("%d bytes in use", got)
	}
	if !g.PidsFull() {
		t.Error("not full with 10 of 10")
	}
	os.WriteFile(filepath.Join(g.path, "pids.max"), []byte("max\n"), 0)
	if g.PidsFull() {
		t.Error("full without a limit")
	}
}
