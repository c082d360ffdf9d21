package main

import (
	"log/slog"
	"os"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/kvm"
)

// newDriver returns Linux' driver. LSUB_ACCEL (auto, kvm, tcg) is for tests
// and benchmarks, and so is a guest for another processor.
func newDriver(log *slog.Logger) (hypervisor.Driver, error) {
	return kvm.New(kvm.Options{Accel: kvm.Accel(os.Getenv("LSUB_ACCEL")), Arch: guestArch(), Logger: log}), nil
}
