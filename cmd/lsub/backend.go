package main

import (
	"context"
	"log/slog"
	"net"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/netstack"
	"github.com/lsub/lsub/profile"
)

// production is what lsub works with outside of tests.
func production() backend {
	return backend{
		version: guest.Version,
		driver:  newDriver,
		guest: func(ctx context.Context, cache string) (machine.GuestFiles, error) {
			g, err := images.OpenGuest(ctx, cache)
			if err != nil {
				return machine.GuestFiles{}, err
			}
			return machine.GuestFiles{Kernel: g.Kernel, Initrd: g.Initrd, System: g.System}, nil
		},
		images:     images.SourceOf,
		catalogues: images.DefaultCatalogues,
		bootstraps: images.CanBuildDebian,
		network: func(p *profile.Profile, log *slog.Logger) (machine.Network, error) {
			n, err := netstack.New(netstack.Config{Subnet: p.Network.Subnet, Logger: log})
			if err != nil {
				return nil, err
			}
			return network{n}, nil
		},
	}
}

// network is a [machine.Network]: netstack knows nothing of hypervisors.
type network struct{ *netstack.Network }

func (n network) Serve(ctx context.Context, conn net.Conn, framing hypervisor.Framing) error {
	if framing == hypervisor.FramingDatagram {
		return n.Network.Serve(ctx, conn, netstack.Datagram)
	}
	return n.Network.Serve(ctx, conn, netstack.Stream)
}

func (n network) MAC() net.HardwareAddr { return n.GuestMAC() }

func (n network) BootArgs() guest.BootArgs {
	return guest.BootArgs{Address: n.Guest(), Gateway: n.Gateway(), MTU: n.MTU()}
}
