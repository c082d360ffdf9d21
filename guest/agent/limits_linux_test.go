package agent

import (
	"strings"
	"testing"

	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/guestv1"
)

func TestCheckLimits(t *testing.T) {
	for _, bad := range []*guestv1.Limits{{MemoryMax: -1}, {CpuMax: -1}, {PidsMax: -1}, {CpuMax: 9}} {
		if checkDistro(&guestv1.Distro{Id: "a", Limits: bad}) == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if err := cgroup.CheckLimits(nil); err != nil {
		t.Error(err)
	}
}

func TestWhyKilled(t *testing.T) {
	d := &distro{spec: &guestv1.Distro{Name: "d"}, limits: &guestv1.Limits{MemoryMax: 512 << 20}}
	if why := d.whyKilled(cgroup.Pressure{Kills: 1}, cgroup.Pressure{Kills: 1, Forks: 3}); why != "" {
		t.Errorf("nothing was killed: %s", why)
	}
	if why := d.whyKilled(cgroup.Pressure{}, cgroup.Pressure{Kills: 1, OwnLimit: 1}); why != "distro d is out of memory (its limit is 512 MiB)" {
		t.Error(why)
	}
	if why := d.whyKilled(cgroup.Pressure{OwnLimit: 1}, cgroup.Pressure{Kills: 1, OwnLimit: 1}); !strings.HasPrefix(why, "the VM is out of memory (it has ") {
		t.Error(why)
	}
}
