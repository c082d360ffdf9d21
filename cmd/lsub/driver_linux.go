package main

import (
	"log/slog"
	"os"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/kvm"
)

// newDriver returns Linux' driver. LSUB_ACCEL (auto, kvm, tcg) is for tests
// and benchmarks.
func newDriver(log *slog.Logger) (hypervisor.Driver, error) {
	return kvm.New(kvm.Options{Accel: kvm.Accel(os.Getenv("LSUB_ACCEL")), Logger: log}), nil
}
