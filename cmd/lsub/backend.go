package main

import (
	"context"
	"os"
	"runtime"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
	"github.com/lsub/lsub/images/guestimage"
	"github.com/lsub/lsub/supervisor"
)

// guestDir is a directory with a guest to boot in place of the one that is embedded, as
// command guestbuild writes it; "" for none. It may be for another processor, which QEMU
// emulates then.
func guestDir() string { return os.Getenv("LSUB_GUEST") }

// guestArch returns the processor that the VM has, as GOARCH.
func guestArch() string {
	if dir := guestDir(); dir != "" {
		if m, err := guestimage.ReadManifest(dir); err == nil { // else the start of the VM says why
			return m.Arch
		}
	}
	return runtime.GOARCH
}

// production is what lsub works with outside of tests.
func production() backend {
	return backend{
		version: guest.Version,
		arch:    guestArch(),
		driver:  newDriver,
		guest: func(ctx context.Context, cache string) (supervisor.GuestFiles, error) {
			open := guestimage.Open
			if dir := guestDir(); dir != "" {
				open = func(ctx context.Context, cache string) (*guestimage.Guest, error) {
					return guestimage.OpenDir(ctx, dir, cache)
				}
			}
			g, err := open(ctx, cache)
			if err != nil {
				return supervisor.GuestFiles{}, err
			}
			return supervisor.GuestFiles{Kernel: g.Kernel, Initrd: g.Initrd, System: g.System}, nil
		},
		images:     images.SourceOf,
		catalogues: catalogue.Defaults,
		bootstraps: images.CanBuildDebian,
		network:    true,
	}
}
