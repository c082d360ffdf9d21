package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest/agent/procfs"
)

// SetUp makes [Root], the group above those of all distros, so that their groups can have
// limits, and keeps some of the VM's memory and threads from them: for the kernel, and
// for the agent, which must get through to distros that want more than there is.
func SetUp() error {
	if err := os.MkdirAll(Root, 0o755); err != nil {
		return err
	}
	for _, group := range []string{filepath.Dir(Root), Root} {
		if err := delegateControllers(group); err != nil {
			return err
		}
	}
	if err := reserveMemory(Root); err != nil {
		return err
	}
	return reserveThreads(Root)
}

// delegateControllers lets the groups below a group have limits of every kind
// that the kernel has.
func delegateControllers(group string) error {
	b, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	for _, name := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			return fmt.Errorf("cgroup controller %s: %w", name, err)
		}
	}
	return nil
}

// reserveMemory limits the memory of all groups below group together.
func reserveMemory(group string) error {
	total, _ := procfs.Memory()
	err := os.WriteFile(filepath.Join(group, "memory.max"), []byte(strconv.FormatUint(total-reserve(total), 10)), 0)
	if err != nil {
		return fmt.Errorf("cgroup: memory of all distros: %w", err)
	}
	return nil
}

// reserve is how much of a VM's memory is not for its distros, in bytes.
func reserve(total uint64) uint64 { return min(128<<20+total/64, total/4) }

// reserveThreads keeps some of the threads that the kernel has room for from
// all distros together: one that does nothing but fork stops there, and the
// agent can still end it.
func reserveThreads(group string) error {
	b, err := os.ReadFile("/proc/sys/kernel/threads-max")
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("threads-max: %w", err)
	}
	const kept = 256
	if err := os.WriteFile(group+"/pids.max", []byte(strconv.Itoa(most-kept)), 0); err != nil {
		return fmt.Errorf("cgroup: threads of all distros: %w", err)
	}
	return nil
}
