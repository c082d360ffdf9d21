package main

import (
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/mdlayher/vsock"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/network"
)

// sysctls are kernel settings, below /proc/sys, for use as a desktop's Linux. Package network
// has those of networks.
var sysctls = map[string]string{
	"fs/inotify/max_user_watches":   "524288", // editors and file watchers
	"fs/inotify/max_user_instances": "1024",
	"vm/max_map_count":              "1048576",
	"kernel/keys/maxkeys":           "20000",
	"kernel/pid_max":                "4194304", // as systemd sets it; distros have a limit of their own
}

// vmNetwork is the network that the host chose.
func vmNetwork(args guest.BootArgs) network.VM {
	return network.VM{Address: args.Address, Gateway: args.Gateway, MTU: args.MTU}
}

// setUpNetwork brings up lo, and eth0 with the address that the host chose.
func setUpNetwork(args guest.BootArgs) error {
	for name, value := range sysctls {
		os.WriteFile("/proc/sys/"+name, []byte(value), 0) // ignored if the kernel lacks the setting
	}
	return vmNetwork(args).SetUp()
}

// makeCard makes eth0 where the hypervisor has no card, and a stream to the host for its
// frames.
func makeCard(mac net.HardwareAddr, order moduleOrder, log *slog.Logger) error {
	if err := order.load("tap"); err != nil {
		return err
	}
	card, err := network.MakeCard(mac)
	if err != nil {
		return err
	}
	go func() {
		for {
			stream, err := vsock.Dial(vsock.Host, guest.CardPort, nil)
			if err == nil {
				// The host takes one stream alone: whoever else in the VM opened one would
				// be its network.
				log.Error("the network is cut off", "err", network.Carry(card, stream))
				return
			}
			time.Sleep(20 * time.Millisecond) // the host listens soon, and nothing tells of it
		}
	}()
	return nil
}
