package main

import (
	"log/slog"

	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
)

// newDriver returns Windows' driver.
func newDriver(log *slog.Logger) (hypervisor.Driver, error) {
	return hvwindows.New(hvwindows.Options{Logger: log}), nil
}
