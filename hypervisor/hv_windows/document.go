package hvwindows

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/lsub/lsub/hypervisor"
)

// document describes a VM to the Host Compute System. Every field is in
// testdata/schema.json, with a link to Microsoft's reference.
type document struct {
	Owner                             string // what 'hcsdiag list' shows
	SchemaVersion                     Version
	ShouldTerminateOnLastHandleClosed bool // so no VM outlives this process
	VirtualMachine                    virtualMachine
}

type virtualMachine struct {
	StopOnReset     bool
	Chipset         chipset
	ComputeTopology topology
	Devices         devices
}

type chipset struct {
	UseUtc            bool
	LinuxKernelDirect *kernelDirect `json:",omitempty"`
	Uefi              *uefi         `json:",omitempty"`
}

type kernelDirect struct{ KernelFilePath, InitRdPath, KernelCmdLine string }

type uefi struct{ BootThis uefiBoot }

type uefiBoot struct{ DeviceType, VmbFsRootPath, DevicePath, OptionalData string }

type topology struct {
	Memory    memory
	Processor processor
}

type memory struct {
	SizeInMB              int64
	AllowOvercommit       bool
	EnableDeferredCommit  bool `json:",omitempty"`
	EnableColdDiscardHint bool `json:",omitempty"`
}

type processor struct {
	Count                          int
	ExposeVirtualizationExtensions bool `json:",omitempty"`
}

type devices struct {
	ComPorts map[string]comPort
	Scsi     map[string]scsi `json:",omitempty"`
	HvSocket hvSocket
}

type comPort struct{ NamedPipe string }

type scsi struct{ Attachments map[string]attachment }

type attachment struct {
	Type, Path               string
	ReadOnly                 bool `json:",omitempty"`
	SupportCompressedVolumes bool `json:",omitempty"`
	AlwaysAllowSparseFiles   bool `json:",omitempty"`
}

type hvSocket struct{ HvSocketConfig hvSocketConfig }

type hvSocketConfig struct{ DefaultBindSecurityDescriptor, DefaultConnectSecurityDescriptor string }

// The schemas that have something that the driver uses.
var (
	schema22 = Version{2, 2} // LinuxKernelDirect
	schema23 = Version{2, 3} // VmbFs, SupportCompressedVolumes
	schema26 = Version{2, 6} // AlwaysAllowSparseFiles
)

// consoleArgs come first among the kernel's arguments. A panic restarts the VM at once, which
// ends it (StopOnReset). pty.legacy_count=0 leaves out 256 terminals that nobody uses.
const consoleArgs = "panic=-1 pty.legacy_count=0"

// systemID is the VM's identifier: a GUID that each profile of each user keeps. Windows notes
// it in the access lists of files, which would grow with a new one for each VM.
func systemID(cfg *hypervisor.Config) string {
	h := sha256.Sum256([]byte("lsub VM\x00" + cfg.Name + "\x00" + cfg.Dir))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // RFC 9562, version 8
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// consolePipe is the name of the pipe of a VM's serial port.
func consolePipe(id string) string { return `\\.\pipe\lsub-console-` + id }

// newDocument describes a VM whose disks are VHDX files.
func newDocument(cfg *hypervisor.Config, f Facts) ([]byte, error) {
	version := schema22
	for _, v := range []Version{schema23, schema26} {
		if !f.Schema.before(v) {
			version = v
		}
	}
	d := document{
		Owner: cfg.Name, SchemaVersion: version, ShouldTerminateOnLastHandleClosed: true,
		VirtualMachine: virtualMachine{
			StopOnReset: true,
			ComputeTopology: topology{
				Memory: memory{
					SizeInMB: cfg.Memory >> 20 &^ 1, AllowOvercommit: true,
					EnableDeferredCommit: true, EnableColdDiscardHint: true,
				},
				Processor: processor{Count: cfg.CPUs, ExposeVirtualizationExtensions: cfg.Nested},
			},
			Devices: devices{
				ComPorts: map[string]comPort{"0": {NamedPipe: consolePipe(systemID(cfg))}},
				HvSocket: hvSocket{hvSocketConfig{ownerOnly(f), ownerOnly(f)}},
			},
		},
	}
	var err error
	if d.VirtualMachine.Chipset, err = newChipset(cfg, f); err != nil {
		return nil, err
	}
	if len(cfg.Disks) > 0 {
		attachments := map[string]attachment{}
		for i, disk := range cfg.Disks {
			attachments[strconv.Itoa(i)] = attachment{
				Type: "VirtualDisk", Path: disk.Path, ReadOnly: disk.ReadOnly,
				SupportCompressedVolumes: !version.before(schema23), AlwaysAllowSparseFiles: !version.before(schema26),
			}
		}
		d.VirtualMachine.Devices.Scsi = map[string]scsi{"0": {attachments}}
	}
	return json.MarshalIndent(d, "", "  ")
}

// newChipset says how the kernel is started: by the hypervisor itself, or on arm64, where it
// cannot, by UEFI from a directory of the host.
func newChipset(cfg *hypervisor.Config, f Facts) (chipset, error) {
	c := chipset{UseUtc: true}
	if f.Arch != "arm64" {
		c.LinuxKernelDirect = &kernelDirect{cfg.Kernel, cfg.Initrd, kernelArgs(cfg, "console=ttyS0,115200")}
		return c, nil
	}
	dir, kernel := splitPath(cfg.Kernel)
	args := kernelArgs(cfg, "console=ttyAMA0")
	if cfg.Initrd != "" {
		other, initrd := splitPath(cfg.Initrd)
		if other != dir {
			return c, fmt.Errorf("on arm64, the kernel %s and the initrd %s have to be in one directory", cfg.Kernel, cfg.Initrd)
		}
		args = `initrd=\` + initrd + " " + args
	}
	c.Uefi = &uefi{uefiBoot{DeviceType: "VmbFs", VmbFsRootPath: dir, DevicePath: `\` + kernel, OptionalData: args}}
	return c, nil
}

// kernelArgs are the kernel's arguments. Hyper-V's disks have no serials, so the guest is
// told what each LUN is.
func kernelArgs(cfg *hypervisor.Config, console string) string {
	args := []string{console, consoleArgs}
	if len(cfg.Disks) > 0 {
		var serials []string
		for _, d := range cfg.Disks {
			serials = append(serials, d.Serial)
		}
		args = append(args, hypervisor.DisksArg+"="+strings.Join(serials, ","))
	}
	if cfg.Cmdline != "" {
		args = append(args, cfg.Cmdline)
	}
	return strings.Join(args, " ")
}

// ownerOnly is a security descriptor (SDDL) that lets in the system and the user alone.
func ownerOnly(f Facts) string { return "D:P(A;;FA;;;SY)(A;;FA;;;" + f.UserSID + ")" }

// splitPath divides a path of Windows, on any system.
func splitPath(path string) (dir, file string) {
	i := strings.LastIndexAny(path, `\/`)
	return path[:max(i, 0)], path[i+1:]
}
