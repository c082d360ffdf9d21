// Package kvm runs VMs on Linux with QEMU: on KVM if the CPU supports it, otherwise in QEMU's
// software emulation (TCG).
//
//	driver := kvm.New(kvm.Options{Logger: log})
//	vm, err := driver.Start(ctx, cfg)
//
// A VM is one QEMU process. It dies with the process that started it, even if that is killed
// with SIGKILL. The two communicate through socket pairs that QEMU inherits: for QMP, the
// network card's frames and, if the kernel's vsock is not available, vhost-user. A card that
// exchanges frames in the guest's memory needs a socket with a path, which is removed before
// the guest runs. So nobody can reach a VM from outside, and no path is left.
//
// Code that does not look at the machine (QEMU's arguments, the choice of the accelerator,
// the decoding of QMP) is in files without a suffix, built and tested on every OS. The driver
// itself is for Linux.
package kvm

import (
	"cmp"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/virtionet"
)

// Accel selects what runs the guest's instructions: KVM or software emulation.
type Accel string

// The accelerators.
const (
	AccelAuto Accel = "auto" // KVM if the CPU supports it, otherwise TCG; also ""
	AccelKVM  Accel = "kvm"  // the CPU's virtualization, through /dev/kvm
	AccelTCG  Accel = "tcg"  // QEMU's software emulation
)

// VSock selects the implementation of the vsock device.
type VSock string

// The vsock backends.
const (
	VSockAuto   VSock = "auto"   // lsub's own; also ""
	VSockKernel VSock = "kernel" // /dev/vhost-vsock
	VSockUser   VSock = "user"   // package vhostvsock, in this process
)

// Options are the choices of a [Driver]. The zero value is ready to use.
type Options struct {
	Accel Accel
	VSock VSock
	// VirtioConsole gives VMs a virtio console (hvc0) and no serial port.
	VirtioConsole bool
	// DiskFormat is that of disks' files, in QEMU's words, such as "vhdx". "" is raw.
	DiskFormat string
	// Framing is how frames travel with a network that does not use the guest's memory.
	Framing virtionet.Framing
	// QEMU is the program to run; "" for qemu-system-… from PATH.
	QEMU string
	// Arch is the processor of the guests, as GOARCH: "" is this machine's. Another one is
	// emulated.
	Arch string
	// Logger receives the driver's workarounds, once per driver; nil discards. Messages about
	// one VM go to its Config's Logger.
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
	if _, ok := qemuNames[o.arch()]; !ok {
		return fmt.Errorf("lsub has no guest for %s processors", o.arch())
	}
	return nil
}

// arch returns the GOARCH of the guests.
func (o *Options) arch() string { return cmp.Or(o.Arch, runtime.GOARCH) }

// qemuNames are QEMU's names by GOARCH: the program and Debian's package.
var qemuNames = map[string]struct{ program, pkg string }{
	"amd64": {"qemu-system-x86_64", "qemu-system-x86"},
	"arm64": {"qemu-system-aarch64", "qemu-system-arm"},
}
