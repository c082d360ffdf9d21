package kvm

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/lsub/lsub/hint"
)

// accelFacts are the facts about the machine that decide on the accelerator.
type accelFacts struct {
	arch    string // GOARCH of this machine
	guest   string // GOARCH of the guest
	kvmErr  error  // error of opening /dev/kvm for reading and writing
	cpuinfo string // /proc/cpuinfo
}

// chooseAccel settles on KVM or TCG. auto never fails: without KVM, it returns the cause as
// reason.
func chooseAccel(want Accel, f accelFacts) (got Accel, reason, err error) {
	if want == AccelTCG {
		return AccelTCG, nil, nil
	}
	unusable := kvmUnusable(f)
	switch {
	case unusable == nil:
		return AccelKVM, nil, nil
	case want == AccelKVM:
		return "", nil, unusable
	}
	return AccelTCG, unusable, nil
}

// kvmUnusable returns why KVM cannot run guests here, or nil. An open /dev/kvm is no proof:
// if lsub's host is itself a VM without nested virtualization, the device may exist, but
// ordinary kernels hang.
func kvmUnusable(f accelFacts) error {
	switch {
	case f.guest != f.arch:
		return hint.New(fmt.Errorf("KVM cannot be used: the guest is for %s processors, this machine's is one for %s", f.guest, f.arch),
			"software emulation runs it (LSUB_ACCEL=tcg)")
	case errors.Is(f.kvmErr, fs.ErrNotExist):
		return hint.New(fmt.Errorf("KVM cannot be used: %w", f.kvmErr),
			"switch on virtualization in the firmware, load the module kvm_intel or kvm_amd, or use software emulation (LSUB_ACCEL=tcg)")
	case errors.Is(f.kvmErr, fs.ErrPermission):
		return hint.New(fmt.Errorf("KVM cannot be used: %w", f.kvmErr),
			"join the group that may use it ('sudo usermod -aG kvm $USER', then log in again), or use software emulation (LSUB_ACCEL=tcg)")
	case f.kvmErr != nil:
		return hint.New(fmt.Errorf("KVM cannot be used: %w", f.kvmErr),
			"the kernel's log ('journalctl -k') may say why; or use software emulation (LSUB_ACCEL=tcg)")
	}
	// On arm64 the kernel makes /dev/kvm only if the CPU can virtualize.
	if f.arch == "amd64" && !hasCPUFlag(f.cpuinfo, "vmx", "svm") {
		return hint.New(errors.New("KVM cannot be used: this CPU shows neither vmx nor svm"),
			"switch on virtualization in the firmware, or nested virtualization if this is a VM itself, or use software emulation (LSUB_ACCEL=tcg)")
	}
	return nil
}

// hasCPUFlag reports whether the first processor of /proc/cpuinfo has one of the flags.
func hasCPUFlag(cpuinfo string, flags ...string) bool {
	for line := range strings.Lines(cpuinfo) {
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(key) != "flags" {
			continue
		}
		return slices.ContainsFunc(strings.Fields(value), func(have string) bool {
			return slices.Contains(flags, have)
		})
	}
	return false
}
