package hypervisor

import "context"

// Emulator is implemented by a driver that may have to emulate the processors of its VMs.
// They are slow then, and what makes them slower is better left off.
type Emulator interface {
	// Emulates reports whether a VM that starts now is emulated.
	Emulates(ctx context.Context) bool
}
