package kvm

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/lsub/lsub/hypervisor"
)

// noFD stands for a file descriptor that the VM does not use.
const noFD = -1

// facts determine the arguments, besides the VM's Config. The file descriptors are numbers in
// QEMU.
type facts struct {
	arch  string // GOARCH
	accel Accel  // AccelKVM or AccelTCG

	qmpFD         int    // a stream socket for QMP
	nicFD         int    // a socket for frames, or noFD
	nicDatagrams  bool   // nicFD is a datagram socket; else it is a stream
	nicPath       string // a socket for vhost-user, in place of nicFD; "" for none
	nicNoMSI      bool   // with nicPath: see fixedMSI
	virtioConsole bool
	diskFormat    string // "" for raw
	vhostFD       int    // /dev/vhost-vsock, or noFD for vhost-user over userFD
	userFD        int    // a stream socket for vhost-user, or noFD
	cid           uint32 // the guest's, with vhostFD
}

// tbSize is the size limit of TCG's cache of translated code, in MiB of host memory. QEMU's
// default is 1 GiB. Measured with a guest that compiles Go's runtime package, whose code is
// 172 MiB when translated: CPU seconds, and how often the whole cache was dropped:
//
//	 32 MiB  89 s  140 times
//	 64 MiB  71 s   23 times
//	128 MiB  53 s    once
//	256 MiB  61 s   never
//	512 MiB  70 s   never
//
// The boot needs 35 MiB of it, and took as long with each.
const tbSize = 128

// argv returns QEMU's arguments, without the program's name.
func argv(cfg *hypervisor.Config, f facts) []string {
	a := &arguments{}
	a.add("-name", opt("guest="+esc(cfg.Name), "debug-threads=on"))
	a.add("-nodefaults")
	a.add("-no-user-config")
	a.add("-display", "none")
	// A guest that reboots or panics ends QEMU. The owner of the VM decides about the next
	// start.
	a.add("-no-reboot")
	// QEMU starts stopped and continues by command, so no event can come before the monitor
	// is ready.
	a.add("-S")
	a.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	a.machine(cfg, f)
	a.add("-kernel", cfg.Kernel)
	if cfg.Initrd != "" {
		a.add("-initrd", cfg.Initrd)
	}
	a.add("-append", strings.TrimSpace(kernelArgs(f)+" "+cfg.Cmdline))
	a.add("-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", f.qmpFD))
	a.add("-mon", "chardev=qmp,mode=control")
	// The file exists and is empty. With append, others can truncate it too.
	a.add("-chardev", opt("file,id=console", "path="+esc(cfg.Console), "append=on"))
	if f.virtioConsole {
		a.add("-device", "virtio-serial-pci,id=serial,max_ports=1")
		a.add("-device", "virtconsole,chardev=console")
	} else {
		a.add("-serial", "chardev:console")
	}
	a.disks(cfg, f)
	a.nic(cfg, f)
	a.vsock(f)
	a.sharePorts(f)
	a.add("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on,deflate-on-oom=on")
	a.add("-device", "virtio-rng-pci,id=rng")
	return a.list
}

// arguments collects QEMU's command line.
type arguments struct{ list []string }

func (a *arguments) add(args ...string) { a.list = append(a.list, args...) }

// opt joins the parts of an option.
func opt(parts ...string) string { return strings.Join(parts, ",") }

// esc escapes a value in an option: a comma ends the value unless it is doubled.
func esc(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// machine chooses the board, processor and memory.
func (a *arguments) machine(cfg *hypervisor.Config, f facts) {
	board := map[string]string{
		// q35 without the parts that virtio guests do not need. microvm boots 0.1 s sooner.
		// But in emulation on a busy host the kernel may fail to calibrate its clock against
		// the PIT, and then microvm has no fallback: the kernel waits for a timer tick that
		// never comes.
		"amd64": "q35,vmport=off,smm=off,usb=off,sata=off,smbus=off",
		"arm64": "virt,gic-version=max,usb=off",
	}[f.arch]
	if cfg.Nested && f.arch == "arm64" {
		board += ",virtualization=on" // EL2, where hypervisors run
	}
	a.add("-machine", board+",memory-backend=ram")
	if f.accel == AccelKVM {
		a.add("-accel", "kvm")
	} else {
		a.add("-accel", fmt.Sprintf("tcg,thread=multi,tb-size=%d", tbSize))
	}
	a.add("-cpu", cpu(f.arch, f.accel, cfg.Nested))
	a.add("-smp", strconv.Itoa(cfg.CPUs))
	// QEMU needs whole pages, and the board whole MiB.
	mib := cfg.Memory >> 20
	a.add("-m", fmt.Sprintf("size=%dM", mib))
	// Shared, so that a vhost-user process can map it. A memfd returns memory that the guest
	// reports as free, and has no name that others could open.
	a.add("-object", fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on,dump=off", mib))
}

// cpu returns the model of the guest's processor. Under KVM it is the host's: nothing is
// emulated, and no VM moves to another machine.
func cpu(arch string, accel Accel, nested bool) string {
	switch {
	case accel == AccelTCG && arch == "amd64" && nested:
		return tcgCPU[arch] + ",+svm"
	case accel == AccelTCG:
		return tcgCPU[arch]
	case arch == "amd64" && !nested:
		return "host,-svm,-vmx"
	}
	return "host"
}

// tcgCPU is the emulated processor, without what is slow in emulation. On amd64 that is "fast
// strings" (erms, fsrm): QEMU emulates such an instruction by single bytes, and without them
// guests copy and clear memory by 8 bytes. Unpacking a distro took a quarter less. On arm64 it
// is signed pointers (pauth): QEMU computes each signature, and kernels and distros sign every
// return address. A boot took 2.0 s in place of 6.6 s.
var tcgCPU = map[string]string{
	"amd64": "max,-erms,-fsrm",
	"arm64": "max,pauth=off",
}

// oneAtFirst boots an emulated kernel on one processor; the guest's init starts the others.
// While a kernel patches its own code, another processor may translate the half-done patch,
// and QEMU before 8.1 keeps that translation: an unexpected int3, which ended one boot in a
// hundred. A late processor would cost 0.5 s to patch the code of locks, and 1 s to measure a
// delay loop. The kernel skips both here: noreplace-smp turns off the one, and lpj gives the
// result of the other. The VM's devices do not depend on it.
const oneAtFirst = "maxcpus=1 noreplace-smp lpj=10000000"

// noCX16 stops an emulated kernel from using the instruction cmpxchg16b, which its memory
// allocator uses all the time. In QEMU before 8.0, the flags that the instruction leaves
// alone come from an earlier operation. If an interrupt comes just then, they are saved and
// restored as garbage (trap, nested task), and the kernel dies. Programs may still use the
// instruction, as those for x86-64-v2 want to.
const noCX16 = "clearcpuid=cx16"

// kernelArgs are the kernel arguments for these devices. The caller's arguments follow, and
// win.
func kernelArgs(f facts) string {
	// A panic has to end the VM at once: the kernel reboots, and -no-reboot then ends QEMU.
	const always = "panic=-1"
	console := map[string]string{"amd64": "console=ttyS0", "arm64": "console=ttyAMA0"}[f.arch]
	if f.virtioConsole {
		console = "console=hvc0"
	}
	if f.arch == "arm64" {
		return console + " " + always
	}
	// t resets by a triple fault, the only way that needs no device.
	args := console + " reboot=t " + always
	if f.accel == AccelTCG {
		args += " " + oneAtFirst + " " + noCX16
	}
	return args
}

// disks adds the block devices. aio=threads and the host's page cache suit a guest with
// little memory: the host may still have pages that the guest drops, and frees them when it
// needs to. Hardened hosts forbid io_uring. QEMU does not detect zeroes: the guest discards
// freed blocks.
func (a *arguments) disks(cfg *hypervisor.Config, f facts) {
	if len(cfg.Disks) > 0 {
		// One thread for the disks, so that they do not wait for the network card's frames.
		a.add("-object", "iothread,id=io")
	}
	for i, d := range cfg.Disks {
		node := diskNode(i)
		a.add("-blockdev", opt("driver="+cmp.Or(f.diskFormat, "raw"), "node-name="+node, "discard=unmap",
			"read-only="+onOff(d.ReadOnly), "file.driver=file", "file.filename="+esc(d.Path), "file.aio=threads"))
		dev := []string{"virtio-blk-pci", "id=" + node + "-dev", "drive=" + node, "iothread=io",
			// A failed write on the host (disk full, quota used up) pauses the VM instead of
			// breaking the guest's file system.
			"werror=stop", "rerror=report"}
		if d.Serial != "" {
			dev = append(dev, "serial="+esc(d.Serial))
		}
		a.add("-device", opt(dev...))
	}
}

// diskNode names the block node of Config.Disks[i].
func diskNode(i int) string { return "disk" + strconv.Itoa(i) }

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// nicVectors gives each of the card's three queues (two for frames, one for control) its own
// interrupt; the card's configuration has one too.
const nicVectors = 4

// fixedMSI is the first QEMU that does not crash in emulation when a vhost-user network card
// has interrupts of its own (MSI-X): earlier ones look for KVM's.
var fixedMSI = version{8, 0, 0}

// nic adds the network card. Its frames go through a socket, or through the guest's memory
// with a back-end at nicPath.
func (a *arguments) nic(cfg *hypervisor.Config, f facts) {
	n := cfg.NIC
	if n == nil {
		return
	}
	dev := []string{"virtio-net-pci", "id=nic", "netdev=net", "mac=" + n.MAC.String(),
		fmt.Sprintf("host_mtu=%d", n.MTU), "rx_queue_size=1024", "romfile="}
	if f.nicPath == "" && f.nicDatagrams {
		a.add("-netdev", fmt.Sprintf("dgram,id=net,local.type=fd,local.str=%d", f.nicFD))
	} else if f.nicPath == "" {
		a.add("-netdev", fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", f.nicFD))
	} else {
		// A path, because QEMU assumes that an inherited socket cannot carry descriptors.
		a.add("-chardev", opt("socket,id=nic-backend", "path="+esc(f.nicPath)))
		a.add("-netdev", "vhost-user,id=net,chardev=nic-backend,queues=1")
		vectors := nicVectors
		if f.nicNoMSI {
			vectors = 0
		}
		// Offloads are settled when the driver starts: QEMU tells no back-end of later
		// changes.
		dev = append(dev, fmt.Sprintf("vectors=%d", vectors), "ctrl_guest_offloads=off")
	}
	a.add("-device", opt(dev...))
}

// vsockVectors gives each of the device's three queues its own interrupt, beside the one of
// the configuration. With fewer, all queues share one.
const vsockVectors = 4

// vsock adds the vsock device for one of the two backends.
func (a *arguments) vsock(f facts) {
	if f.vhostFD != noFD {
		a.add("-device", fmt.Sprintf("vhost-vsock-pci,id=vsock,vectors=%d,guest-cid=%d,vhostfd=%d", vsockVectors, f.cid, f.vhostFD))
		return
	}
	a.add("-chardev", fmt.Sprintf("socket,id=vsock-backend,fd=%d", f.userFD))
	a.add("-device", fmt.Sprintf("vhost-user-vsock-pci,id=vsock,vectors=%d,chardev=vsock-backend", vsockVectors))
}

// sharePorts are the buses for file system devices, which are added while the VM runs.
// PCI Express' root bus takes none then. On amd64 a single bridge has room for 31 of them:
// the kernel hears of new ones by ACPI, within 0.1 s. On arm64 there is no ACPI, and each
// device needs a port of its own.
func sharePorts(arch string) (buses []string, room int) {
	if arch == "amd64" {
		return []string{"shares"}, 31
	}
	for i := range 8 {
		buses = append(buses, fmt.Sprintf("share%d", i))
	}
	return buses, 1
}

func (a *arguments) sharePorts(f facts) {
	buses, _ := sharePorts(f.arch)
	for i, bus := range buses {
		if f.arch == "amd64" {
			a.add("-device", "pcie-pci-bridge,id="+bus)
		} else {
			a.add("-device", fmt.Sprintf("pcie-root-port,id=%s,chassis=%d,slot=%d", bus, i+1, i+1))
		}
	}
}
