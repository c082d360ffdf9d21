package main

import (
	"log/slog"
	"os"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/kvm"
)

// newDriver returns Linux' driver. LSUB_ACCEL (auto, kvm, tcg) and LSUB_VSOCK
// (user, kernel) are for tests and benchmarks, and so is a guest for another processor.
func newDriver(log *slog.Logger) (hypervisor.Driver, error) {
	return kvm.New(kvm.Options{Accel: kvm.Accel(os.Getenv("LSUB_ACCEL")), VSock: kvm.VSock(os.Getenv("LSUB_VSOCK")), Arch: guestArch(), Logger: log}), nil
}
