package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
	"github.com/lsub/lsub/supervisor"
)

// windowsTroubles are what can be wrong on a Windows machine, by words in LSUBTEST.
var windowsTroubles = map[string]func(*hcstest.Host){
	"windows-feature-off": func(h *hcstest.Host) { h.FactsErr = hvwindows.ServiceNotAvailable },
	"windows-not-allowed": func(h *hcstest.Host) { h.FactsErr = hvwindows.HCSAccessDenied },
	"windows-too-old":     func(h *hcstest.Host) { h.Windows.Schema.Minor = 1 },
	"windows-no-memory":   func(h *hcstest.Host) { h.StartErr = hvwindows.OutOfMemory },
}

// hvBackend is an lsub as on Windows, over a stand-in for the Host Compute System with fake
// guests.
func hvBackend() backend {
	b := fakeBackend()
	fake := b.driver
	b.driver = func(log *slog.Logger) (hypervisor.Driver, error) {
		engine, err := fake(log)
		if err != nil {
			return nil, err
		}
		h := &hcstest.Host{Engine: engine, Windows: hcstest.Windows()}
		if trouble := windowsTroubles[os.Getenv("LSUBTEST")]; trouble != nil {
			trouble(h)
		}
		return hvwindows.NewWith(h, hvwindows.Options{Logger: log}), nil
	}
	b.guest = func(ctx context.Context, cache string) (supervisor.GuestFiles, error) {
		files, err := fakeGuestFiles(ctx, cache)
		if err != nil {
			return files, err
		}
		files.Kernel += "-elf"
		return files, os.WriteFile(files.Kernel, []byte("\x7fELF"), 0o600)
	}
	return b
}

// realWindows is systemBackend with the real guest; nil where that cannot be.
var realWindows func() backend

// systemBackend is lsub with this system's own driver, and fake guests' files. With a port in
// LSUB_HCS_HOST it is lsub as users have it, whose machines TestWine has.
func systemBackend() backend {
	if realWindows != nil && os.Getenv("LSUB_HCS_HOST") != "" {
		return realWindows()
	}
	b := hvBackend()
	b.driver = newDriver
	return b
}
