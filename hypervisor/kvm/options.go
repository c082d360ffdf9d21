// Package kvm runs VMs on Linux with QEMU: on KVM where the CPU can, else in
// QEMU's software emulation (TCG).
//
//	driver := kvm.New(kvm.Options{Logger: log})
//	vm, err := driver.Start(ctx, cfg)
//
// A VM is one QEMU process, which dies with the process that started it, even
// when that is killed with SIGKILL. Everything the two say to each other goes
// through socket pairs that QEMU inherits: QMP, the network card's frames and,
// where the kernel's vsock cannot be had, vhost-user. A card that exchanges frames
// in the guest's memory needs a socket with a path, which is gone before the guest
// runs. So nothing of a VM can be reached from outside, and no path is left behind.
//
// What is decided without looking at the machine (QEMU's arguments, the
// choice of the accelerator, what a message of QMP means) is in files without
// a suffix, built and tested on every OS; the driver itself is for Linux.
package kvm

import (
	"fmt"
	"log/slog"

	"github.com/lsub/lsub/hint"
)

// Accel selects what runs the guest's instructions: KVM or software emulation.
type Accel string

// The accelerators.
const (
	AccelAuto Accel = "auto" // KVM where the CPU can, else TCG; also ""
	AccelKVM  Accel = "kvm"  // the CPU's virtualization, through /dev/kvm
	AccelTCG  Accel = "tcg"  // QEMU's software emulation
)

// VSock selects the implementation of the vsock device.
type VSock string

// The vsock backends.
const (
	VSockAuto   VSock = "auto"   // the kernel's where it can be opened, else lsub's own; also ""
	VSockKernel VSock = "kernel" // /dev/vhost-vsock
	VSockUser   VSock = "user"   // package vhostvsock, in this process
)

// Options are the choices of a [Driver]. The zero value is ready to use.
type Options struct {
	Accel Accel
	VSock VSock
	// QEMU is the program to run; "" for qemu-system-… from PATH.
	QEMU string
	// Logger receives what the driver works around, once per driver; nil
	// discards. What concerns one VM goes to its Config's Logger.
	Logger *slog.Logger
}

func (o *Options) validate() error {
	switch o.Accel {
	case "", AccelAuto, AccelKVM, AccelTCG:
	default:
		return hint.New(fmt.Errorf("unknown accelerator %q", o.Accel), "LSUB_ACCEL is auto, kvm or tcg")
	}
	switch o.VSock {
	case "", VSockAuto, VSockKernel, VSockUser:
	default:
		return fmt.Errorf("unknown vsock backend %q; there are auto, kernel and user", o.VSock)
	}
	return nil
}
