package main

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// nestedEmulated reports whether VMs can run in this VM, which QEMU emulates.
var nestedEmulated = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && emulated() && canRunVMs(string(b))
})

// heldVM keeps a VM of KVM for as long as the kernel runs.
var heldVM []int

// holdVM makes a VM that never runs. With the first VM and after the last one, the kernel
// patches its scheduler, and KVM itself, while other processors may run them: see
// patchKernel. KVM's module is in the system image.
func holdVM() error {
	const createVM, createIRQChip, createVCPU = 0xae01, 0xae60, 0xae41 // linux/kvm.h
	kvm, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kvm: %w", err)
	}
	defer unix.Close(kvm)
	vm, err := unix.IoctlRetInt(kvm, createVM)
	if err != nil {
		return fmt.Errorf("make a VM: %w", err)
	}
	heldVM = append(heldVM, vm)
	if err := unix.IoctlSetInt(vm, createIRQChip, 0); err != nil {
		return fmt.Errorf("make a VM's interrupt controller: %w", err)
	}
	cpu, err := unix.IoctlRetInt(vm, createVCPU) // its number is 0
	if err != nil {
		return fmt.Errorf("make a VM's processor: %w", err)
	}
	heldVM = append(heldVM, cpu)
	return nil
}
