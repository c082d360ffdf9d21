package main

import (
	"context"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
	"github.com/lsub/lsub/images/guestimage"
	"github.com/lsub/lsub/supervisor"
)

// production is what lsub works with outside of tests.
func production() backend {
	return backend{
		version: guest.Version,
		driver:  newDriver,
		guest: func(ctx context.Context, cache string) (supervisor.GuestFiles, error) {
			g, err := guestimage.Open(ctx, cache)
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
