package vz

import (
	"net"
	"os"
	"strings"

	"github.com/lsub/lsub/hypervisor"
)

// Settings describe a VM in the framework's terms: VZVirtualMachineConfiguration and what
// hangs on it. They are plain data. What a VM always has (entropy, a balloon, a vsock device)
// is not in them.
type Settings struct {
	// Kernel is an uncompressed Image on Apple silicon, a bzImage on Intel.
	// https://developer.apple.com/documentation/virtualization/vzlinuxbootloader/kernelurl
	Kernel string
	// Initrd is the initial RAM file system; "" for none.
	// https://developer.apple.com/documentation/virtualization/vzlinuxbootloader/initialramdiskurl
	Initrd string
	// CommandLine has the kernel's arguments.
	// https://developer.apple.com/documentation/virtualization/vzlinuxbootloader/commandline
	CommandLine string
	// CPUs is the number of processors.
	// https://developer.apple.com/documentation/virtualization/vzvirtualmachineconfiguration/cpucount
	CPUs uint
	// Memory is in bytes, a multiple of 1 MiB.
	// https://developer.apple.com/documentation/virtualization/vzvirtualmachineconfiguration/memorysize
	Memory uint64
	// MachineIdentifier is that of the machine whose state is restored; nil for a new one.
	// https://developer.apple.com/documentation/virtualization/vzgenericplatformconfiguration/machineidentifier
	MachineIdentifier []byte
	// Nested lets the VM run VMs.
	// https://developer.apple.com/documentation/virtualization/vzgenericplatformconfiguration/isnestedvirtualizationenabled
	Nested bool
	// Console is a file to which the guest's console is appended (hvc0).
	// https://developer.apple.com/documentation/virtualization/vzfileserialportattachment
	Console string
	// Disks are the virtio block devices.
	// https://developer.apple.com/documentation/virtualization/vzvirtualmachineconfiguration/storagedevices
	Disks []DiskSettings
	// Card is the network card; nil for none.
	// https://developer.apple.com/documentation/virtualization/vzvirtualmachineconfiguration/networkdevices
	Card *CardSettings
	// Shares are directories of the host.
	// https://developer.apple.com/documentation/virtualization/vzvirtualmachineconfiguration/directorysharingdevices
	Shares []ShareSettings
	// RosettaTag is the tag of the share that has Rosetta; "" for none.
	// https://developer.apple.com/documentation/virtualization/vzlinuxrosettadirectoryshare
	RosettaTag string
}

// DiskSettings are a raw disk image. The host caches it: the framework's choice by itself, and
// reading and writing without the cache, have damaged file systems of Linux guests (Lima issue
// 1957). A flush of the guest is an fsync, which is what a program on the host gets; full
// synchronization takes ten times as long.
type DiskSettings struct {
	// Path is the image's file.
	// https://developer.apple.com/documentation/virtualization/vzdiskimagestoragedeviceattachment
	Path string
	// ReadOnly keeps the guest from writing.
	// https://developer.apple.com/documentation/virtualization/vzdiskimagestoragedeviceattachment/isreadonly
	ReadOnly bool
	// Caching is always "cached".
	// https://developer.apple.com/documentation/virtualization/vzdiskimagecachingmode
	Caching string
	// Synchronization is always "fsync".
	// https://developer.apple.com/documentation/virtualization/vzdiskimagesynchronizationmode
	Synchronization string
	// Identifier is the disk's serial, at most 20 bytes.
	// https://developer.apple.com/documentation/virtualization/vzvirtioblockdeviceconfiguration/blockdeviceidentifier
	Identifier string
}

// CardSettings are a network card whose frames are datagrams on a socket.
type CardSettings struct {
	// File is the framework's end of a pair of datagram sockets.
	// https://developer.apple.com/documentation/virtualization/vzfilehandlenetworkdeviceattachment
	File *os.File `json:"-"`
	// MTU is in bytes, 1500 to 65535.
	// https://developer.apple.com/documentation/virtualization/vzfilehandlenetworkdeviceattachment/maximumtransmissionunit
	MTU int
	// MAC is the card's address.
	// https://developer.apple.com/documentation/virtualization/vznetworkdeviceconfiguration/macaddress
	MAC string
}

// ShareSettings are a directory that the guest can mount.
type ShareSettings struct {
	// Tag is the name by which the guest mounts it.
	// https://developer.apple.com/documentation/virtualization/vzvirtiofilesystemdeviceconfiguration/tag
	Tag string
	// Dir is the directory.
	// https://developer.apple.com/documentation/virtualization/vzshareddirectory/url
	Dir string
	// ReadOnly keeps the guest from writing.
	// https://developer.apple.com/documentation/virtualization/vzshareddirectory/isreadonly
	ReadOnly bool
}

const (
	// consoleArgs come first: the guest's console is the virtio console. A panic restarts the
	// machine at once.
	consoleArgs = "console=hvc0 panic=-1"
	// minMTU is the least that the framework takes. A guest can set its own MTU lower.
	minMTU = 1500
	// rosettaTag is the tag of the share with Rosetta.
	rosettaTag = "lsub-rosetta"
)

// newSettings describes a VM. The card's file is missing yet.
func newSettings(cfg *hypervisor.Config, f Facts) *Settings {
	s := &Settings{
		Kernel: cfg.Kernel, Initrd: cfg.Initrd,
		CommandLine: strings.TrimSpace(consoleArgs + " " + cfg.Cmdline),
		CPUs:        uint(cfg.CPUs), Memory: uint64(cfg.Memory) &^ (1<<20 - 1),
		Nested: cfg.Nested, Console: cfg.Console,
	}
	for _, d := range cfg.Disks {
		s.Disks = append(s.Disks, DiskSettings{
			Path: d.Path, ReadOnly: d.ReadOnly, Caching: "cached", Synchronization: "fsync", Identifier: d.Serial,
		})
	}
	if n := cfg.NIC; n != nil {
		s.Card = &CardSettings{MTU: max(n.MTU, minMTU), MAC: net.HardwareAddr(n.MAC).String()}
	}
	for _, share := range cfg.Shares {
		s.Shares = append(s.Shares, ShareSettings{Tag: share.Tag, Dir: share.Dir, ReadOnly: share.ReadOnly})
	}
	if f.Rosetta == RosettaReady {
		s.RosettaTag = rosettaTag
	}
	return s
}
