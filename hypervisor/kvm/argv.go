package kvm

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/lsub/lsub/hypervisor"
)

// noFD is the file descriptor of what a VM does not have.
const noFD = -1

// facts are what the arguments depend on besides the VM's Config. The file
// descriptors are numbers in QEMU.
type facts struct {
	arch  string // GOARCH
	accel Accel  // AccelKVM or AccelTCG

	qmpFD    int    // a stream socket for QMP
	nicFD    int    // a stream socket for frames, or noFD
	nicPath  string // a socket for vhost-user, in place of nicFD; "" for none
	nicNoMSI bool   // with nicPath: see fixedMSI
	vhostFD  int    // /dev/vhost-vsock, or noFD for vhost-user over userFD
	userFD   int    // a stream socket for vhost-user, or noFD
	cid      uint32 // the guest's, with vhostFD
}

// tbSize is the most that TCG's cache of translated code takes, in MiB; all of
// it is memory of the host. QEMU's default is 1 GiB. Seen with a guest that
// compiles Go's runtime package, whose code is 172 MiB when translated: CPU
// seconds, and how often the whole cache was dropped:
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
	// A guest that reboots or panics ends QEMU; what runs the VM decides about
	// the next start.
	a.add("-no-reboot")
	// QEMU starts stopped, and goes on by command: so no event can come before
	// the monitor is ready for it.
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
	// The file exists, truncated: appending lets others truncate it too.
	a.add("-chardev", opt("file,id=console", "path="+esc(cfg.Console), "append=on"))
	a.add("-serial", "chardev:console")
	a.disks(cfg)
	a.nic(cfg, f)
	a.vsock(f)
	a.add("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on,deflate-on-oom=on")
	a.add("-device", "virtio-rng-pci,id=rng")
	return a.list
}

// arguments collects QEMU's command line.
type arguments struct{ list []string }

func (a *arguments) add(args ...string) { a.list = append(a.list, args...) }

// opt joins the parts of an option.
func opt(parts ...string) string { return strings.Join(parts, ",") }

// esc protects a value in an option, where a comma ends it unless doubled.
func esc(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// machine chooses the board, processor and memory.
func (a *arguments) machine(cfg *hypervisor.Config, f facts) {
	board := map[string]string{
		// q35 less what a guest with virtio devices does not miss. microvm
		// boots 0.1 s sooner, but has nothing to fall back on when the kernel
		// cannot calibrate its clock against the PIT, as happens in emulation
		// on a busy host: it then waits for a timer tick that never comes.
		"amd64": "q35,vmport=off,smm=off,usb=off,sata=off,smbus=off",
		"arm64": "virt,gic-version=max,usb=off",
	}[f.arch]
	a.add("-machine", board+",memory-backend=ram")
	if f.accel == AccelKVM {
		a.add("-accel", "kvm")
		a.add("-cpu", "host")
	} else {
		a.add("-accel", fmt.Sprintf("tcg,thread=multi,tb-size=%d", tbSize))
		a.add("-cpu", tcgCPU[f.arch])
	}
	a.add("-smp", strconv.Itoa(cfg.CPUs))
	// QEMU wants whole pages, and the board whole MiB.
	mib := cfg.Memory >> 20
	a.add("-m", fmt.Sprintf("size=%dM", mib))
	// Shared, so that a vhost-user process can map it. A memfd gives back what
	// the guest reports as free, and has no name that others could open.
	a.add("-object", fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on,dump=off", mib))
}

// tcgCPU is the processor that emulation offers. Without "fast strings" (erms, fsrm),
// because guests then copy and clear memory by 8 bytes and not by 1, which is what
// such an instruction is emulated as: unpacking a distro took a quarter less.
var tcgCPU = map[string]string{
	"amd64": "max,-erms,-fsrm",
	"arm64": "max",
}

// oneAtFirst has an emulated kernel boot on one processor; the guest's init starts
// the others. While a kernel patches its own code, another processor may
// translate the half-done patch, and QEMU before 8.1 then keeps that translation:
// an int3 that nobody expects, which ended one boot in a hundred. A late
// processor would cost 0.5 s for the locks' code to be patched and 1 s for a delay
// loop to be measured, had the one not been told to leave it and the other its
// result: the virtual machine's devices do not depend on it.
const oneAtFirst = "maxcpus=1 noreplace-smp lpj=10000000"

// noCX16 has an emulated kernel do without the instruction cmpxchg16b, which its memory
// allocator uses all the time. QEMU before 8.0 takes the flags that it leaves alone from an
// operation that is over. If an interrupt comes just then, they are saved and restored
// as garbage (trap, nested task), and the kernel dies. Programs may still use it, as those
// for x86-64-v2 want to.
const noCX16 = "clearcpuid=cx16"

// kernelArgs are the kernel arguments that belong to these devices. The
// caller's come later, and win.
func kernelArgs(f facts) string {
	// A panic has to end the VM at once: reboot, which -no-reboot turns into
	// QEMU's end.
	const always = "panic=-1"
	if f.arch == "arm64" {
		return "console=ttyAMA0 " + always
	}
	// t: by a triple fault, the one way to reset that needs no device.
	args := "console=ttyS0 reboot=t " + always
	if f.accel == AccelTCG {
		args += " " + oneAtFirst + " " + noCX16
	}
	return args
}

// disks adds the block devices. aio=threads and the host's page cache suit a
// guest that is given little memory: what it drops, the host may still have,
// and the host gives it up whenever it needs to; io_uring is forbidden on
// hardened hosts. Zeroes are not looked for: the guest discards what it frees.
func (a *arguments) disks(cfg *hypervisor.Config) {
	if len(cfg.Disks) > 0 {
		// One thread for the disks, which so do not wait for the network card's frames.
		a.add("-object", "iothread,id=io")
	}
	for i, d := range cfg.Disks {
		node := diskNode(i)
		a.add("-blockdev", opt("driver=raw", "node-name="+node, "discard=unmap",
			"read-only="+onOff(d.ReadOnly), "file.driver=file", "file.filename="+esc(d.Path), "file.aio=threads"))
		dev := []string{"virtio-blk-pci", "id=" + node + "-dev", "drive=" + node, "iothread=io",
			// What the host does not write (its disk is full, a quota is used up)
			// halts the VM until it does, instead of breaking the guest's file system.
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

// nicVectors gives each of the card's three queues (two for frames, one for control)
// an interrupt of its own, beside the one of its configuration.
const nicVectors = 4

// fixedMSI is the first QEMU whose emulation does not crash over a vhost-user network
// card with interrupts of their own (MSI-X): it looked for KVM's, without KVM.
var fixedMSI = version{8, 0, 0}

// nic adds the network card, whose frames go through a socket, or are exchanged in the
// guest's memory by a back-end at nicPath.
func (a *arguments) nic(cfg *hypervisor.Config, f facts) {
	n := cfg.NIC
	if n == nil {
		return
	}
	dev := []string{"virtio-net-pci", "id=nic", "netdev=net", "mac=" + n.MAC.String(),
		fmt.Sprintf("host_mtu=%d", n.MTU), "rx_queue_size=1024", "romfile="}
	if f.nicPath == "" {
		a.add("-netdev", fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", f.nicFD))
	} else {
		// A path, because QEMU believes of an inherited socket that it cannot carry descriptors.
		a.add("-chardev", opt("socket,id=nic-backend", "path="+esc(f.nicPath)))
		a.add("-netdev", "vhost-user,id=net,chardev=nic-backend,queues=1")
		vectors := nicVectors
		if f.nicNoMSI {
			vectors = 0
		}
		// Offloads are settled when the driver starts; QEMU would tell no back-end of
		// later changes.
		dev = append(dev, fmt.Sprintf("vectors=%d", vectors), "ctrl_guest_offloads=off")
	}
	a.add("-device", opt(dev...))
}

// vsockVectors gives each of the device's three queues an interrupt of its own,
// beside the one of its configuration. With fewer, all queues share one.
const vsockVectors = 4

// vsock adds the vsock device of one of the two backends.
func (a *arguments) vsock(f facts) {
	if f.vhostFD != noFD {
		a.add("-device", fmt.Sprintf("vhost-vsock-pci,id=vsock,vectors=%d,guest-cid=%d,vhostfd=%d", vsockVectors, f.cid, f.vhostFD))
		return
	}
	a.add("-chardev", fmt.Sprintf("socket,id=vsock-backend,fd=%d", f.userFD))
	a.add("-device", fmt.Sprintf("vhost-user-vsock-pci,id=vsock,vectors=%d,chardev=vsock-backend", vsockVectors))
}
