package agent

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/procfs"
	"github.com/lsub/lsub/guest/guestv1"
)

// cpuPeriod is the time in µs after which a CPU limit is counted anew.
const cpuPeriod = 100_000

// minCPU is the least that the kernel takes for a CPU limit, in thousandths: it
// counts in ms.
const minCPU = 10

// checkLimits refuses limits that the kernel would not take.
func checkLimits(l *guestv1.Limits) error {
	switch {
	case l.GetMemoryMax() < 0 || l.GetCpuMax() < 0 || l.GetPidsMax() < 0:
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "a limit is below 0")
	case l.GetCpuMax() > 0 && l.GetCpuMax() < minCPU:
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "a distro needs 0.01 CPUs at least")
	}
	return nil
}

// limitFiles are limits as the files of a group have them. Swap is none for a distro
// with a memory limit: the limit is for both, as the VM's memory is.
func limitFiles(l *guestv1.Limits) []struct{ name, value string } {
	orMax := func(n int64) string {
		if n == 0 {
			return "max"
		}
		return strconv.FormatInt(n, 10)
	}
	swap := "max"
	if l.GetMemoryMax() > 0 {
		swap = "0"
	}
	return []struct{ name, value string }{
		{"memory.max", orMax(l.GetMemoryMax())},
		{"memory.swap.max", swap},
		{"cpu.max", fmt.Sprintf("%s %d", orMax(l.GetCpuMax()*cpuPeriod/1000), cpuPeriod)},
		{"pids.max", orMax(l.GetPidsMax())},
	}
}

// limit gives the distro limits. They are set twice: above the root that the
// distro sees, where it cannot lift them, and in that root, where its programs
// (systemd, Java, Go, container engines) look how much they may use.
func (c *cgroup) limit(l *guestv1.Limits) error {
	for _, dir := range []string{c.path, c.inside} {
		for _, f := range limitFiles(l) {
			err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.value), 0)
			if os.IsNotExist(err) && strings.HasPrefix(f.value, "max") {
				continue // a kernel that cannot limit this, and need not
			}
			if err != nil {
				return fmt.Errorf("cgroup: set %s to %s: %w", f.name, f.value, err)
			}
		}
	}
	return nil
}

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
		if used := d.cgroup.memoryInUse(); used > most {
			return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "allow it more, or stop it first: 'lsub stop "+d.spec.Name+"'",
				"distro %s uses %s of memory now, more than %s", d.spec.Name, inMiB(used), inMiB(most))
		}
	}
	if err := d.cgroup.limit(l); err != nil {
		return err
	}
	d.mu.Lock()
	d.limits = l
	d.mu.Unlock()
	d.a.log.Info("distro has limits", "distro", d.spec.Name, "memory", l.GetMemoryMax(), "cpu", l.GetCpuMax(), "pids", l.GetPidsMax())
	return nil
}

// memoryInUse is the memory of the distro that the kernel cannot take back: 0
// where unknown.
func (c *cgroup) memoryInUse() int64 {
	current, err := readCount(filepath.Join(c.path, "memory.current"))
	if err != nil {
		return 0
	}
	stat, err := readCounts(filepath.Join(c.path, "memory.stat"))
	if err != nil {
		return 0
	}
	return current - (stat["file"] - stat["shmem"]) - stat["slab_reclaimable"]
}

// pressure counts what the kernel did because a distro met a limit.
type pressure struct {
	kills int64 // processes that were killed for want of memory
	own   int64 // times that the distro's own memory limit was the cause
	forks int64 // forks that failed because of its limit of processes
}

func (c *cgroup) pressure() pressure {
	if c == nil {
		return pressure{} // it was not made
	}
	memory, _ := readCounts(filepath.Join(c.path, "memory.events"))
	p := pressure{kills: memory["oom_kill"]}
	// Both groups have the limit, and either may notice.
	for _, dir := range []string{c.path, c.inside} {
		local, _ := readCounts(filepath.Join(dir, "memory.events.local"))
		pids, _ := readCounts(filepath.Join(dir, "pids.events.local"))
		p.own += local["oom"]
		p.forks += pids["max"]
	}
	return p
}

// full tells whether the distro has as many processes as it may.
func (c *cgroup) full() bool {
	most, err := readCount(filepath.Join(c.path, "pids.max")) // an error for "max"
	if err != nil {
		return false
	}
	now, err := readCount(filepath.Join(c.path, "pids.current"))
	return err == nil && now >= most
}

// readCounts reads a file of lines with a name and a number.
func readCounts(file string) (map[string]int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 {
			counts[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return counts, nil
}

func readCount(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// whyKilled says in words why processes of the distro were killed between two
// looks at it, "" where none was.
func (d *distro) whyKilled(before, now pressure) string {
	d.mu.Lock()
	most := d.limits.GetMemoryMax()
	d.mu.Unlock()
	switch {
	case now.kills == before.kills:
		return ""
	case now.own > before.own && most > 0:
		return fmt.Sprintf("distro %s is out of memory (its limit is %s)", d.spec.Name, inMiB(most))
	case now.own > before.own:
		return fmt.Sprintf("distro %s is out of memory", d.spec.Name)
	}
	total, _ := procfs.Memory()
	return fmt.Sprintf("the VM is out of memory (it has %s)", inMiB(int64(total)))
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

// reportEvery is how often, at most, a distro at its limits is written of.
const reportEvery = 10 * time.Second

// watchLimits logs when the distro meets a limit, until the returned stop is called,
// which waits for it. The kernel tells of changes of the groups' events: nothing wakes up
// while nothing happens.
func (d *distro) watchLimits() (stop func(), err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	for _, file := range []string{"memory.events", "pids.events.local", insideGroup + "/pids.events.local"} {
		_, err := unix.InotifyAddWatch(fd, filepath.Join(d.cgroup.path, file), unix.IN_MODIFY)
		if err != nil && err != unix.ENOENT {
			f.Close()
			return nil, fmt.Errorf("watch %s: %w", file, err)
		}
	}
	log := d.a.log.With("distro", d.spec.Name)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r := bufio.NewReader(f)
		for seen := d.cgroup.pressure(); ; {
			if _, err := r.ReadByte(); err != nil {
				return
			}
			r.Discard(r.Buffered())
			now := d.cgroup.pressure()
			if now.kills == seen.kills && now.forks == seen.forks {
				continue // seen stays: what leads to a kill is told before the kill
			}
			if why := d.whyKilled(seen, now); why != "" {
				log.Warn("the kernel killed processes: "+why, "killed", now.kills-seen.kills)
			}
			if now.forks > seen.forks {
				log.Warn("processes of the distro cannot start others: it has as many as it may", "failed", now.forks-seen.forks)
			}
			seen = now
			select {
			case <-time.After(reportEvery):
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); f.Close(); <-done }, nil
}

// ReserveMemory keeps some of the VM's memory from its distros together, whose groups are below
// group: for the kernel, and for the agent, which must get through to distros
// that want more than there is.
func ReserveMemory(group string) error {
	total, _ := procfs.Memory()
	err := os.WriteFile(filepath.Join(group, "memory.max"), []byte(strconv.FormatUint(total-reserve(total), 10)), 0)
	if err != nil {
		return fmt.Errorf("cgroup: memory of all distros: %w", err)
	}
	return nil
}

// reserve is how much of a VM's memory is not for its distros, in bytes.
func reserve(total uint64) uint64 { return min(128<<20+total/64, total/4) }

func inMiB(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
