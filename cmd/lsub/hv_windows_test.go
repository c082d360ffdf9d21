package main

import (
	"log/slog"
	"os"

	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
)

func init() {
	realWindows = func() backend {
		b := production()
		b.driver = func(log *slog.Logger) (hypervisor.Driver, error) {
			// Wine has no Hyper-V sockets. All else is as on Windows.
			host := &hcstest.Remote{Host: hvwindows.ThisHost(), Address: "127.0.0.1:" + os.Getenv("LSUB_HCS_HOST")}
			return hvwindows.NewWith(host, hvwindows.Options{Logger: log}), nil
		}
		return b
	}
}
