package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/procfs"
)

// Pressure counts what the kernel did because a distro met a limit. The difference of two
// readings tells what happened between them.
type Pressure struct {
	Kills    int64 // processes that were killed for want of memory
	OwnLimit int64 // times that the distro's own memory limit was the cause
	Forks    int64 // forks that failed because of its limit of processes
}

// Pressure returns the counts of now. Of a nil group they are 0.
func (g *Group) Pressure() Pressure {
	if g == nil {
		return Pressure{} // it was not made
	}
	memory, _ := readCounts(filepath.Join(g.path, "memory.events"))
	p := Pressure{Kills: memory["oom_kill"]}
	// Both groups have the limit, and either may notice.
	for _, dir := range []string{g.path, g.inside} {
		local, _ := readCounts(filepath.Join(dir, "memory.events.local"))
		pids, _ := readCounts(filepath.Join(dir, "pids.events.local"))
		p.OwnLimit += local["oom"]
		p.Forks += pids["max"]
	}
	return p
}

// WhyKilled says in words why the kernel killed processes of a distro between two
// readings, "" where it killed none. most is the distro's memory limit, 0 for none.
func WhyKilled(name string, most int64, before, now Pressure) string {
	switch {
	case now.Kills == before.Kills:
		return ""
	case now.OwnLimit > before.OwnLimit && most > 0:
		return fmt.Sprintf("distro %s is out of memory (its limit is %s)", name, InMiB(most))
	case now.OwnLimit > before.OwnLimit:
		return fmt.Sprintf("distro %s is out of memory", name)
	}
	total, _ := procfs.Memory()
	return fmt.Sprintf("the VM is out of memory (it has %s)", InMiB(int64(total)))
}

// WatchPressure calls report when the distro has met a limit, with the counts of the
// last call and those of now, until the returned stop is called; stop waits for report
// to return. The kernel announces changes of the groups' events, so nothing wakes up
// while nothing happens. After a report the next one comes pause later at the earliest.
func (g *Group) WatchPressure(pause time.Duration, report func(before, now Pressure)) (stop func(), err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	for _, file := range []string{"memory.events", "pids.events.local", InsideGroup + "/pids.events.local"} {
		_, err := unix.InotifyAddWatch(fd, filepath.Join(g.path, file), unix.IN_MODIFY)
		if err != nil && err != unix.ENOENT {
			f.Close()
			return nil, fmt.Errorf("watch %s: %w", file, err)
		}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r := bufio.NewReader(f)
		for seen := g.Pressure(); ; {
			if _, err := r.ReadByte(); err != nil {
				return
			}
			r.Discard(r.Buffered())
			now := g.Pressure()
			if now.Kills == seen.Kills && now.Forks == seen.Forks {
				continue // seen stays: what leads to a kill is told before the kill
			}
			report(seen, now)
			seen = now
			select {
			case <-time.After(pause):
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); f.Close(); <-done }, nil
}
