package machine

import (
	"fmt"

	"github.com/lsub/lsub/hint"
)

const (
	maxDefaultMemory = 8 << 30   // more serves few, and all of it can go
	minDefaultMemory = 512 << 20 // systemd, a shell and apt
	minHostMemory    = 1 << 30
)

// DefaultMemory is what a VM gets of a host with so many bytes of memory: half
// of it, within limits. The host gives it page by page, as the guest uses it.
func DefaultMemory(host int64) (int64, error) {
	if host < minHostMemory {
		return 0, hint.New(fmt.Errorf("this machine has %d MiB of memory; a VM beside it needs at least %d MiB", host>>20, minHostMemory>>20),
			"use a machine with more memory")
	}
	half := host / 2 >> 20 << 20 // whole MiB
	return min(max(half, minDefaultMemory), maxDefaultMemory), nil
}
