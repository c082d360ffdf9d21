package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/vz"
	"github.com/lsub/lsub/hypervisor/vz/vztest"
	"github.com/lsub/lsub/supervisor"
	"github.com/lsub/lsub/virtionet"
)

// macTroubles are what can be wrong on a Mac, by words in LSUBTEST.
var macTroubles = map[string]func(*vztest.Framework){
	"mac-off":     func(f *vztest.Framework) { f.Mac.Supported = false },
	"mac-too-old": func(f *vztest.Framework) { f.Mac.Version = "12.7" },
	"mac-unsigned": func(f *vztest.Framework) {
		f.CheckErr = &vz.Error{Domain: "VZErrorDomain", Code: 2, Description: "Invalid virtual machine configuration. The process doesn’t have the “com.apple.security.virtualization” entitlement."}
	},
	"mac-rosetta": func(f *vztest.Framework) { f.Mac.Rosetta = vz.RosettaMissing },
	"mac-taken": func(f *vztest.Framework) {
		f.StartErr = &vz.Error{Domain: "VZErrorDomain", Code: 1, Description: "Internal Virtualization error. The virtual machine failed to start.", Details: "HV_BUSY"}
	},
}

// realMac is vzBackend with the real guest; nil where that cannot be.
var realMac func() backend

// vzBackend is an lsub as on a Mac, over a stand-in for Virtualization.framework with fake
// guests.
func vzBackend() backend {
	if realMac != nil && os.Getenv("LSUBTEST_MAC") == "real" {
		return realMac()
	}
	b := fakeBackend()
	fake := b.driver
	b.driver = func(log *slog.Logger) (hypervisor.Driver, error) {
		d, err := fake(log)
		if err != nil {
			return nil, err
		}
		engine := d.(*hvtest.Fake)
		engine.Framing = virtionet.Datagram
		return macDriver(engine, false, log), nil
	}
	b.guest = func(ctx context.Context, cache string) (supervisor.GuestFiles, error) {
		files, err := fakeGuestFiles(ctx, cache)
		if err != nil {
			return files, err
		}
		files.Kernel = filepath.Join(cache, "vmlinux")
		return files, os.WriteFile(files.Kernel, []byte("\x7fELF"), 0o600)
	}
	return b
}

// macDriver is macOS' driver over a stand-in with an engine. real says that its guests are.
func macDriver(engine hypervisor.Driver, real bool, log *slog.Logger) hypervisor.Driver {
	f := &vztest.Framework{Engine: engine, Mac: vztest.Mac(), KeepConsole: real}
	if trouble := macTroubles[os.Getenv("LSUBTEST")]; trouble != nil {
		trouble(f)
	}
	return vz.NewWith(f, vz.Options{Logger: log})
}
