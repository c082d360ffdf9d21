package kvm

import (
	"context"
	"fmt"

	"github.com/lsub/lsub/hypervisor"
)

var _ hypervisor.Examiner = (*Driver)(nil)

// Examine looks for QEMU, an accelerator and memory.
func (d *Driver) Examine(ctx context.Context) []hypervisor.Requirement {
	qemu := hypervisor.Requirement{Name: "QEMU"}
	if program, err := findQEMU(&d.opts); err != nil {
		qemu.Err = err
	} else {
		qemu.Found = program
		if v, err := d.qemuVersion(ctx, program); err == nil {
			qemu.Found = fmt.Sprintf("%v, %s", v, program)
		}
		qemu.Err = d.checkVersion(ctx, program)
	}
	accel := hypervisor.Requirement{Name: "KVM", Optional: d.opts.Accel != AccelKVM}
	got, reason, err := chooseAccel(d.opts.Accel, readAccelFacts(d.opts.arch()))
	switch {
	case err != nil:
		accel.Err = err
	case reason != nil:
		accel.Err, accel.Found = reason, "software emulation, which is slower"
	case got == AccelTCG:
		accel.Found = "not asked for: software emulation"
	default:
		accel.Found = "/dev/kvm"
	}
	return []hypervisor.Requirement{qemu, accel, examineMemory()}
}

// examineMemory looks whether the smallest VM can boot.
func examineMemory() hypervisor.Requirement {
	r := hypervisor.Requirement{Name: "memory"}
	f, err := readMemoryFacts()
	if err != nil {
		r.Err = err
		return r
	}
	r.Found = fmt.Sprintf("%d MiB available of %d", f.available>>20, f.total>>20)
	_, r.Err = checkMemory(hypervisor.MinMemory, f)
	return r
}
