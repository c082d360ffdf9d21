package agent

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/guestv1"
)

// setLimits gives other limits to the distro, which runs or starts.
func (d *distro) setLimits(ctx context.Context, l *guestv1.Limits) error {
	select {
	case <-d.ready:
	case <-d.gone:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	done := d.stopping || proto.Equal(d.limits, l) // one that stops gets them when it starts
	d.mu.Unlock()
	if done {
		return nil
	}
	// The kernel would kill processes until the rest fits.
	if most := l.GetMemoryMax(); most > 0 {
		if used := d.group.MemoryInUse(); used > most {
			return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "allow it more, or stop it first: 'lsub stop "+d.spec.Name+"'",
				"distro %s uses %s of memory now, more than %s", d.spec.Name, cgroup.InMiB(used), cgroup.InMiB(most))
		}
	}
	if err := d.group.SetLimits(l); err != nil {
		return err
	}
	d.mu.Lock()
	d.limits = l
	d.mu.Unlock()
	d.a.log.Info("distro has limits", "distro", d.spec.Name, "memory", l.GetMemoryMax(), "cpu", l.GetCpuMax(), "pids", l.GetPidsMax())
	return nil
}

// whyKilled says in words why processes of the distro were killed between two readings,
// "" where none was.
func (d *distro) whyKilled(before, now cgroup.Pressure) string {
	d.mu.Lock()
	most := d.limits.GetMemoryMax()
	d.mu.Unlock()
	return cgroup.WhyKilled(d.spec.Name, most, before, now)
}

// tooMany is the error of a command that cannot start because the distro has
// as many processes as it may.
func (d *distro) tooMany() error {
	d.mu.Lock()
	most := d.limits.GetPidsMax()
	d.mu.Unlock()
	return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_UNSPECIFIED,
		"'lsub manage --pids-max' allows it more, 'lsub stop "+d.spec.Name+"' ends them", "distro %s has as many processes as it may: %d", d.spec.Name, most)
}

// reportPause is the shortest time between two log lines about a distro at its limits.
const reportPause = 10 * time.Second

// watchLimits logs when the distro meets a limit, until the returned stop is called.
func (d *distro) watchLimits() (stop func(), err error) {
	log := d.a.log.With("distro", d.spec.Name)
	return d.group.WatchPressure(reportPause, func(before, now cgroup.Pressure) {
		if why := d.whyKilled(before, now); why != "" {
			log.Warn("the kernel killed processes: "+why, "killed", now.Kills-before.Kills)
		}
		if now.Forks > before.Forks {
			log.Warn("processes of the distro cannot start others: it has as many as it may", "failed", now.Forks-before.Forks)
		}
	})
}
