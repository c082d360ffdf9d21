package vz

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// Facts describes a Mac, as far as it matters to VMs.
type Facts struct {
	Version   string // of macOS, as in "15.1"
	Supported bool   // the processor can run VMs, and macOS lets it (sysctl kern.hv_support)
	Nested    bool   // VMs may run VMs: Apple silicon from M3 on, macOS 15
	Rosetta   Rosetta
	Kernels   []KernelFormat // that VMs boot, at least one

	MaxCPUs   int   // of a VM
	MaxMemory int64 // of a VM, in bytes
}

// Rosetta says whether VMs may run programs for Intel's processors through Rosetta.
type Rosetta int

// What may be with Rosetta.
const (
	RosettaNone    Rosetta = iota // this Mac has an Intel processor, or macOS is older than 13
	RosettaMissing                // it can be installed
	RosettaReady
)

// minVersion is the first macOS with frames larger than 1500 bytes, Rosetta and shares that
// lsub can use.
const minVersion = "13.0"

// check returns why no VM can run on this Mac.
func (f Facts) check() error {
	if err := f.checkVersion(); err != nil {
		return err
	}
	return f.checkSupported()
}

func (f Facts) checkVersion() error {
	if compareVersions(f.Version, minVersion) >= 0 {
		return nil
	}
	return hint.New(fmt.Errorf("macOS %s is too old; lsub needs macOS %s", f.Version, minVersion), updateMacOS)
}

func (f Facts) checkSupported() error {
	if f.Supported {
		return nil
	}
	return hint.New(errors.New("the hypervisor of this Mac is off (kern.hv_support is 0)"),
		"if macOS runs in a VM itself, switch on nested virtualization there; else this Mac is too old to run VMs")
}

// checkConfig returns what a VM asks for and this Mac does not have.
func (f Facts) checkConfig(cfg *hypervisor.Config) error {
	if cfg.Memory > f.MaxMemory {
		return hint.New(fmt.Errorf("not enough memory: the VM wants %d MiB, this Mac gives a VM %d MiB at most", cfg.Memory>>20, f.MaxMemory>>20),
			lessMemory)
	}
	if cfg.CPUs > f.MaxCPUs {
		return hint.New(fmt.Errorf("the VM wants %d processors, this Mac gives a VM %d at most", cfg.CPUs, f.MaxCPUs),
			"give the VM fewer processors")
	}
	if cfg.Nested {
		return f.checkNested()
	}
	return nil
}

func (f Facts) checkNested() error {
	if f.Nested {
		return nil
	}
	return hint.New(errors.New("VMs cannot run VMs on this Mac"), "it takes a processor from Apple's M3 on, and macOS 15")
}

// compareVersions compares versions such as 13.2.1. What is missing or no number counts as 0.
func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		number := func(parts []string) (n int) {
			if i < len(parts) {
				n, _ = strconv.Atoi(parts[i])
			}
			return n
		}
		if c := cmp.Compare(number(x), number(y)); c != 0 {
			return c
		}
	}
	return 0
}

// hasAny tells whether text contains one of the words.
func hasAny(text string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}
