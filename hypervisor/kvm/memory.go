package kvm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/lsub/lsub/hint"
)

// memoryFacts are the host's resources and limits, in bytes.
type memoryFacts struct {
	total     int64 // RAM and swap
	available int64 // available without swapping out other programs, and free swap
	limit     int64 // of this process's control group; 0 for none
	address   int64 // RLIMIT_AS; 0 for none
}

const (
	// qemuMemory is QEMU's use of memory besides the guest's: its own, and the translation
	// cache in emulation.
	qemuMemory = tbSize<<20 + 128<<20
	// bootMemory is the memory that a guest touches while it boots. The host allocates a VM's
	// memory at its first use, so a VM may have more than is free. With less than this it
	// does not even boot.
	bootMemory = 192 << 20
)

// checkMemory returns why a VM of size bytes cannot run on this host. warn is set if it can
// run only as long as it leaves memory unused.
func checkMemory(size int64, f memoryFacts) (warn string, err error) {
	mib := func(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
	fail := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("not enough memory: "+format, args...)
	}
	switch {
	case size > f.total:
		_, err = fail("the VM wants %s, this machine has %s with its swap", mib(size), mib(f.total))
		return "", hint.New(err, "give the VM less memory (LSUB_MEMORY, in MiB)")
	case f.limit != 0 && size > f.limit:
		_, err = fail("the VM wants %s, this session's control group may use %s", mib(size), mib(f.limit))
		return "", hint.New(err, "give the VM less memory (LSUB_MEMORY, in MiB), or raise the control group's memory.max")
	case f.address != 0 && size+qemuMemory > f.address:
		_, err = fail("the VM wants %s, but a process may map %s (ulimit -v)", mib(size), mib(f.address))
		return "", hint.New(err, "give the VM less memory (LSUB_MEMORY, in MiB), or raise the limit with 'ulimit -v unlimited'")
	case f.available < min(size, bootMemory)+qemuMemory/2:
		_, err = fail("%s are free, too little for a VM to boot", mib(f.available))
		return "", hint.New(err, "close other programs, or stop other VMs")
	case size > f.available:
		return fmt.Sprintf("the VM may use %s, but only %s are free now", mib(size), mib(f.available)), nil
	}
	return "", nil
}

// parseMeminfo reads /proc/meminfo.
func parseMeminfo(text string) (memoryFacts, error) {
	kib := map[string]int64{}
	for line := range strings.Lines(text) {
		key, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
			kib[key] = n
		}
	}
	if kib["MemTotal"] <= 0 {
		return memoryFacts{}, errors.New("no MemTotal in /proc/meminfo")
	}
	return memoryFacts{
		total:     (kib["MemTotal"] + kib["SwapTotal"]) << 10,
		available: (kib["MemAvailable"] + kib["SwapFree"]) << 10,
	}, nil
}
