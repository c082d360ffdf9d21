package guest

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The serials by which the guest finds its disks.
const (
	SystemDisk = "lsub-system" // EROFS, read-only: modules and the VM's own programs
	DataDisk   = "lsub-data"   // btrfs: images and distros; made on first boot
)

// RosettaTag is the tag of the share in which a Mac has Rosetta, which runs programs for
// x86-64 on arm64.
const RosettaTag = "lsub-rosetta"

// BootArgs is what the host tells the guest on the kernel's command line.
type BootArgs struct {
	Address netip.Prefix // of eth0; invalid for no network
	Gateway netip.Addr   // which also answers DNS
	MTU     int          // bytes
	// CardMAC is the address of a card that the guest makes itself, because the hypervisor has
	// none: it opens a stream to the host's [CardPort] for the frames. nil: the VM has a card.
	CardMAC net.HardwareAddr
	// Disks are the serials of disks that have none themselves, but are LUNs of a SCSI
	// controller, in their order. Drivers of hypervisors add this argument.
	Disks  []string
	Search []string      // domains in which the distros look names up; neither spaces nor commas are in them
	Idle   time.Duration // how long a distro is idle before it is stopped, where it says nothing itself; 0: five minutes; below 0: never
}

// Cmdline returns b as kernel arguments.
func (b BootArgs) Cmdline() string {
	var args []string
	if b.Address.IsValid() {
		args = append(args, fmt.Sprintf("lsub.net=%s,%s,%d", b.Address, b.Gateway, b.MTU))
	}
	if b.CardMAC != nil {
		args = append(args, "lsub.card="+b.CardMAC.String())
	}
	if len(b.Disks) > 0 {
		args = append(args, "lsub.disks="+strings.Join(b.Disks, ","))
	}
	if len(b.Search) > 0 {
		args = append(args, "lsub.search="+strings.Join(b.Search, ","))
	}
	if b.Idle != 0 {
		args = append(args, "lsub.idle="+b.Idle.String())
	}
	return strings.Join(args, " ")
}

// ParseBootArgs reads what Cmdline wrote from among other kernel arguments.
func ParseBootArgs(cmdline string) (BootArgs, error) {
	var b BootArgs
	for _, arg := range strings.Fields(cmdline) {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "lsub.disks":
			b.Disks = strings.Split(value, ",")
		case "lsub.card":
			var err error
			if b.CardMAC, err = net.ParseMAC(value); err != nil {
				return b, fmt.Errorf("kernel argument %q: %w", arg, err)
			}
		case "lsub.search":
			b.Search = strings.Split(value, ",")
		case "lsub.idle":
			var err error
			if b.Idle, err = time.ParseDuration(value); err != nil {
				return b, fmt.Errorf("kernel argument %q: %w", arg, err)
			}
		case "lsub.net":
			parts := strings.Split(value, ",")
			if len(parts) != 3 {
				return b, fmt.Errorf("kernel argument %q: want ADDRESS/BITS,GATEWAY,MTU", arg)
			}
			var err1, err2, err3 error
			b.Address, err1 = netip.ParsePrefix(parts[0])
			b.Gateway, err2 = netip.ParseAddr(parts[1])
			b.MTU, err3 = strconv.Atoi(parts[2])
			for _, err := range []error{err1, err2, err3} {
				if err != nil {
					return b, fmt.Errorf("kernel argument %q: %w", arg, err)
				}
			}
		}
	}
	return b, nil
}
