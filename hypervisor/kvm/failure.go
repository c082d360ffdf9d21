package kvm

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// prefix is the start of QEMU's messages: its program's name and the argument concerned.
var prefix = regexp.MustCompile(`^(?:[^ ]*/)?qemu-[^: ]*: `)

// explain builds an error from QEMU's stderr: the lines that say what is wrong, and advice if
// there is some.
func explain(stderr string) error {
	var lines []string
	for line := range strings.Lines(stderr) {
		line = prefix.ReplaceAllString(strings.TrimSpace(line), "")
		if line == "" || strings.HasPrefix(line, "warning: ") {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil
	}
	if n := len(lines); n > 5 {
		lines = lines[n-5:]
	}
	err := errors.New(strings.Join(lines, "; "))
	text := err.Error()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if !strings.Contains(text, p) {
				return false
			}
		}
		return true
	}
	switch {
	case has("Cannot allocate memory"):
		err = hint.New(fmt.Errorf("not enough memory: %w", err), "give the VM less memory (LSUB_MEMORY, in MiB), or close other programs")
	case has("Failed to get", "lock"):
		err = hint.New(fmt.Errorf("%w: %w", hypervisor.ErrDiskInUse, err), "another VM or program has the disk open; stop it first")
	case has("KVM", "Permission denied"):
		err = hint.New(err, "join the group that may use /dev/kvm ('sudo usermod -aG kvm $USER', then log in again)")
	case has("kvm", "resource busy"), has("KVM", "resource busy"):
		err = hint.New(fmt.Errorf("another program has the processor's virtualization: %w", err),
			"end the VMs of the other hypervisor, such as VirtualBox, or use software emulation (LSUB_ACCEL=tcg)")
	case has("seccomp"):
		err = hint.New(err, "this QEMU is built without sandboxing; install your distribution's own")
	}
	return err
}
