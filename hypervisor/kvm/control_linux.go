package kvm

import (
	"context"
	"fmt"
	"net"
)

// Pause halts the guest's processors. Its devices finish what they are at.
func (v *vm) Pause(ctx context.Context) error { return v.setHeld(ctx, true) }

// Resume lets the guest go on.
func (v *vm) Resume(ctx context.Context) error { return v.setHeld(ctx, false) }

// setHeld has QEMU stop or go on for the VM's owner. A VM that waits for room on the host's
// disk tries its write once more when it goes on.
func (v *vm) setHeld(ctx context.Context, held bool) error {
	what, command := "resume", "cont"
	if held {
		what, command = "pause", "stop"
	}
	fail := func(err error) error { return fmt.Errorf("%s the VM %s: %w", what, v.cfg.Name, err) }
	v.pause.hold.Lock()
	defer v.pause.hold.Unlock()
	switch {
	case v.alive.Err() != nil:
		return fail(net.ErrClosed)
	case v.pause.held == held:
		return nil
	}
	if err := v.mon.run(ctx, command, nil); err != nil {
		if v.alive.Err() != nil {
			err = net.ErrClosed
		}
		return fail(err)
	}
	v.pause.mu.Lock()
	v.pause.held = held
	v.pause.mu.Unlock()
	return nil
}

// retry has a VM that waits for the host's disk try its write once more, unless its owner has
// paused it.
func (p *pause) retry() error {
	p.hold.Lock()
	defer p.hold.Unlock()
	if p.held {
		return nil
	}
	return p.vm.mon.run(p.vm.alive, "cont", nil)
}

// SetMemory sets the size that the balloon leaves to the guest.
func (v *vm) SetMemory(ctx context.Context, size int64) error {
	fail := func(err error) error { return fmt.Errorf("memory of the VM %s: %w", v.cfg.Name, err) }
	if size <= 0 || size > v.cfg.Memory {
		return fail(fmt.Errorf("%d bytes are not within its %d", size, v.cfg.Memory))
	}
	if v.alive.Err() != nil {
		return fail(net.ErrClosed)
	}
	if err := v.mon.runWith(ctx, "balloon", map[string]any{"value": size}, nil); err != nil {
		return fail(err)
	}
	return nil
}
