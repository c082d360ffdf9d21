package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticks is how many clock ticks /proc counts in a second, on every architecture
// that Go runs on.
const ticks = 100

// children returns the processes that a process has started.
func children(pid int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var list []int
	for _, file := range files {
		if f := statFields(file); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				list = append(list, child)
			}
		}
	}
	return list, nil
}

// statFields are the fields of proc_pid_stat(5) from the third on, which
// follows the program's name in brackets.
func statFields(file string) []string {
	text := content(file)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
}

// processorTime is what a process has used so far.
func processorTime(pid int) (time.Duration, error) {
	f := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(f) < 13 {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * (time.Second / ticks), err
}

// mib turns "1024 kB" into "1".
func mib(kib string) string {
	n, _ := strconv.ParseInt(strings.TrimSuffix(kib, " kB"), 10, 64)
	return strconv.FormatInt(n>>10, 10)
}

// memory is a size in MiB that /proc/PID/status tells, such as VmRSS.
func memory(pid int, key string) float64 {
	n, _ := strconv.ParseFloat(strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", pid), key), " kB"), 64)
	return n / 1024
}

// vmProcesses are the processes of a VM that runs.
type vmProcesses struct{ supervisor, qemu int }

func (h *home) processes() (*vmProcesses, error) {
	st, err := h.status()
	if err != nil {
		return nil, err
	}
	list, err := children(st.PID)
	if err != nil {
		return nil, err
	}
	for _, pid := range list {
		if args := strings.Split(content(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00"); strings.Contains(args[0], "qemu") {
			h.b.report.Machine.sawVM(st, args)
			return &vmProcesses{supervisor: st.PID, qemu: pid}, nil
		}
	}
	return nil, fmt.Errorf("the supervisor %d has no QEMU", st.PID)
}
