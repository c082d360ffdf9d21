package procfs

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
)

// Load is a reading of the kernel's counters of work done and time waited (PSI,
// pressure stall information). The difference of two readings tells what slowed down
// the work between them.
type Load struct {
	at        time.Time
	busy, all uint64        // ticks of all CPUs
	cpu, disk time.Duration // in which something waited for a CPU, or for a disk
}

// LoadNow reads the counters. Those that the kernel does not have are 0.
func LoadNow() Load {
	l := Load{at: time.Now(), cpu: pressureTotal(content("/proc/pressure/cpu")), disk: pressureTotal(content("/proc/pressure/io"))}
	l.busy, l.all = processorTicks(content("/proc/stat"))
	return l
}

func content(file string) string {
	b, _ := os.ReadFile(file)
	return string(b)
}

// processorTicks reads the first line of /proc/stat: "cpu" and the ticks of user,
// nice, system, idle, iowait, irq, softirq, steal, and more that are in these.
func processorTicks(stat string) (busy, all uint64) {
	line, _, _ := strings.Cut(stat, "\n")
	for i, field := range strings.Fields(line) {
		if i == 0 || i > 8 {
			continue
		}
		n, _ := strconv.ParseUint(field, 10, 64)
		all += n
		if idle := i == 4 || i == 5; !idle {
			busy += n
		}
	}
	return busy, all
}

// pressureTotal reads a file of /proc/pressure, whose first line ends in the
// microseconds in which something waited.
func pressureTotal(file string) time.Duration {
	line, _, _ := strings.Cut(file, "\n")
	_, total, _ := strings.Cut(line, "total=")
	n, _ := strconv.ParseInt(total, 10, 64)
	return time.Duration(n) * time.Microsecond
}

// Since returns the difference to an earlier reading for the log: the time that
// passed, and the shares of it in which the CPUs were busy, in which a task waited for
// a CPU, and in which one waited for a disk. The wait for CPUs tells more than their
// use: a VM's CPUs are threads of the host, which take their time to wake up.
func (l Load) Since(earlier Load) slog.Value {
	took := l.at.Sub(earlier.at)
	share := func(part, whole float64) string { return fmt.Sprintf("%.0f%%", 100*part/max(whole, 1)) }
	return slog.GroupValue(
		slog.Duration("took", took),
		slog.String("cpus_busy", share(float64(l.busy-earlier.busy), float64(l.all-earlier.all))),
		slog.String("cpus_wanted", share(float64(l.cpu-earlier.cpu), float64(took))),
		slog.String("disk_awaited", share(float64(l.disk-earlier.disk), float64(took))))
}
