package kvm

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// prefix is what QEMU writes before its messages: its program's name, and the
// argument that it speaks of.
var prefix = regexp.MustCompile(`^(?:[^ ]*/)?qemu-[^: ]*: `)

// explain makes an error of what QEMU has written to stderr before it ended:
// the lines that say what is wrong, and advice where there is some.
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
	case has("seccomp"):
		err = hint.New(err, "this QEMU is built without sandboxing; install your distribution's own")
	}
	return err
}
