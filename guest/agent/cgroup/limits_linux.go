package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// cpuPeriod is the time in µs after which a CPU limit is counted anew.
const cpuPeriod = 100_000

// minCPU is the least that the kernel takes for a CPU limit, in thousandths: it
// counts in ms.
const minCPU = 10

// CheckLimits refuses limits that the kernel would not take.
func CheckLimits(l *guestv1.Limits) error {
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

// SetLimits gives the distro limits; 0 is none. They are set twice: above the root that the
// distro sees, where it cannot lift them, and in that root, where its programs
// (systemd, Java, Go, container engines) look how much they may use.
func (g *Group) SetLimits(l *guestv1.Limits) error {
	for _, dir := range []string{g.path, g.inside} {
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

// MemoryInUse returns how many bytes of memory the distro has that the kernel cannot take
// back, 0 where unknown.
func (g *Group) MemoryInUse() int64 {
	current, err := readCount(filepath.Join(g.path, "memory.current"))
	if err != nil {
		return 0
	}
	stat, err := readCounts(filepath.Join(g.path, "memory.stat"))
	if err != nil {
		return 0
	}
	return current - (stat["file"] - stat["shmem"]) - stat["slab_reclaimable"]
}

// PidsFull tells whether the distro has as many processes as it may.
func (g *Group) PidsFull() bool {
	most, err := readCount(filepath.Join(g.path, "pids.max")) // an error for "max"
	if err != nil {
		return false
	}
	now, err := readCount(filepath.Join(g.path, "pids.current"))
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

// InMiB writes a number of bytes as people read a limit.
func InMiB(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
