//go:build !linux && !darwin && !windows

package main

import (
	"fmt"
	"log/slog"
	"runtime"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// newDriver says that there is none.
func newDriver(*slog.Logger) (hypervisor.Driver, error) {
	return nil, hint.New(fmt.Errorf("this lsub has no driver for virtual machines on %s yet", runtime.GOOS), "use it on Linux, macOS or Windows")
}
