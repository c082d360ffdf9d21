package main

import (
	"log/slog"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/vz"
)

// newDriver returns macOS' driver.
func newDriver(log *slog.Logger) (hypervisor.Driver, error) {
	return vz.New(vz.Options{Logger: log}), nil
}
