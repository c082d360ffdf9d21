package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
)

// fakeGroup is a group whose files are ordinary ones.
func fakeGroup(t *testing.T, files map[string]string) *Group {
	t.Helper()
	g := At(t.TempDir())
	if err := os.Mkdir(g.inside, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(g.path, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(g.path, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func TestLimit(t *testing.T) {
	g := fakeGroup(t, nil)
	for _, l := range []struct {
		limits *guestv1.Limits
		want   string
	}{
		{&guestv1.Limits{MemoryMax: 512 << 20, CpuMax: 1500, PidsMax: 100}, "536870912 0 150000 100000 100"},
		{&guestv1.Limits{CpuMax: minCPU}, "max max 1000 100000 max"},
		{nil, "max max max 100000 max"},
	} {
		for _, dir := range []string{g.path, g.inside} {
			for _, f := range []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"} {
				if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := g.SetLimits(l.limits); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{g.path, g.inside} {
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
	bare := &Group{path: "/proc/self/nothing", inside: "/proc/self/nothing"}
	if err := bare.SetLimits(nil); err != nil {
		t.Error(err)
	}
	if err := bare.SetLimits(&guestv1.Limits{PidsMax: 1}); err == nil {
		t.Error("a limit that cannot be set is taken for set")
	}
}

func TestReserve(t *testing.T) {
	for _, c := range []struct{ total, want uint64 }{{256 << 20, 64 << 20}, {8 << 30, 256 << 20}} {
		if got := reserve(c.total); got != c.want {
			t.Errorf("of %d: %d, want %d", c.total, got, c.want)
		}
	}
}
