// Package hypervisor is the contract between lsub and whatever runs its
// utility VM. It holds no code that runs a VM: the drivers live in the directories
// below (kvm, vz), do not know each other, and are
// chosen by cmd/lsub alone.
//
// A VM you hold is a VM that was started. It lives until its guest powers off
// or [VM.Close] cuts the power, whatever becomes of the context that bounded
// its start:
//
//	vm, err := driver.Start(ctx, hypervisor.Config{
//		Name: "default", Dir: runDir, Kernel: "vmlinux", Initrd: "initrd",
//		CPUs: 2, Memory: 1 << 30, Console: "console.log",
//	})
//	if err != nil {
//		return err
//	}
//	defer vm.Close()
//	conn, err := vm.Dial(ctx, 1024) // a vsock stream to the guest
//
// What only some hypervisors can do is a further small interface, found by type assertion
// on a VM ([Pauser], [Balloon], [Saver], …) or on a driver ([Sharer], [Nester], [Restorer],
// [Cardless], [DiskMaker]). A driver without it lacks the method. Package hvtest has the list of all
// promises, as tests.
package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/lsub/lsub/virtionet"
)

// Driver starts VMs on one kind of hypervisor. It is safe for concurrent use.
type Driver interface {
	// Name is the driver's short name, as shown to users: "kvm", "vz", "hv".
	Name() string
	// Check tells whether this machine can run VMs: nil, or an error that says
	// in a sentence what is missing, with a hint (package hint) what to do.
	Check(ctx context.Context) error
	// Start boots a VM. ctx bounds the start, not the VM's life. It returns
	// when the VM runs, which is before the guest has booted. When it fails,
	// nothing is left running.
	Start(ctx context.Context, cfg Config) (VM, error)
}

// VM is a running virtual machine. All methods are safe for concurrent use.
type VM interface {
	// Dial opens a vsock stream to the port that a guest process listens on.
	// While the guest boots or is paused, it waits. Where nobody listens it fails with an error that wraps
	// syscall.ECONNREFUSED or syscall.ECONNRESET; on a VM that is gone, with one that wraps
	// [net.ErrClosed]. Connections support CloseWrite() error.
	Dial(ctx context.Context, port uint32) (net.Conn, error)
	// Listen accepts the vsock streams that guest processes open to the host
	// (CID 2) at the port. The caller closes the listener; the VM's end does too.
	Listen(ctx context.Context, port uint32) (net.Listener, error)
	// Wait blocks until the VM is gone: nil after a power-off by the guest or
	// by Close, else why it died. It may be called many times.
	Wait() error
	// Close cuts the power and waits until the VM is gone. It is idempotent
	// and unblocks Wait. A clean shutdown is a request to the guest instead.
	Close() error
}

// ErrDiskInUse is what a Start fails with (wrapped) where another process has a
// disk open: one that was killed may take some seconds to write what it holds.
var ErrDiskInUse = errors.New("a disk is in use")

// ErrGuestCrashed is what Wait returns (wrapped) where the guest's kernel has
// crashed, or restarted the machine.
var ErrGuestCrashed = errors.New("the guest has crashed or restarted itself")

// ErrPaused is what [Paused] returns (wrapped) for a VM that its owner has paused.
var ErrPaused = errors.New("the VM was paused")

// FileSystems is implemented by a VM that takes file system devices (virtio-fs) while it runs.
type FileSystems interface {
	// AttachFS gives the guest a device that it mounts by its tag, of [a-z0-9-] and at most
	// 36 bytes. connect starts the device's back-end, which speaks vhost-user and has the
	// number of request queues that is given, and returns a connection to it. It is called
	// again when the back-end has died, and may not call the VM. It is not called any more
	// when detach has returned, or the VM is gone. The guest must have unmounted the device
	// before.
	AttachFS(ctx context.Context, tag string, queues int, connect func(context.Context) (*net.UnixConn, error)) (detach func(context.Context) error, err error)
}

// NIC is a network card whose frames a user-mode network carries. There are four ways for
// frames, and the driver takes one that its hypervisor has:
//
//   - through the guest's memory ([NIC].Attach);
//   - over a stream, each after its length ([virtionet.Stream], NIC.Serve);
//   - over a pair of datagram sockets ([virtionet.Datagram], NIC.Serve);
//   - without a card, over a vsock stream that the guest opens: see [Cardless].
type NIC struct {
	MAC net.HardwareAddr
	MTU int // bytes of payload per frame, 1280 to 65520
	// Serve moves frames between the card and the network until conn fails or
	// ctx is done. The driver calls it once per VM, and closes conn when the
	// VM is gone. It is needed also where Attach is set: few hypervisors take Attach.
	Serve func(ctx context.Context, conn net.Conn, framing virtionet.Framing) error
	// Attach takes the place of Serve with drivers that exchange frames in the
	// guest's memory. The driver calls it once for each VM, before the guest runs. nil: Serve
	// is what there is.
	Attach func(card virtionet.Card) virtionet.Receiver
}

// Share is a directory of the host that the hypervisor itself serves as a virtio file system:
// in the guest, mount -t virtiofs TAG DIR. See [Sharer].
type Share struct {
	Tag      string // 1 to 36 bytes, of its own in each VM
	Dir      string // a directory that exists
	ReadOnly bool
}

// Disk is a raw disk image on the host, or what a [DiskMaker] has made.
type Disk struct {
	Path     string // a file that exists
	ReadOnly bool
	// Serial, at most 20 bytes of [a-z0-9-], is how the guest finds the disk
	// (/sys/block/*/serial, or [DisksArg]).
	Serial string
}

// Config describes a VM. It holds no field of a single hypervisor.
type Config struct {
	// Name is for process titles and logs.
	Name string
	// Dir is an existing directory for the driver's sockets. It belongs to the
	// user alone and has a short path (a socket's path has 107 bytes at most).
	Dir string

	Kernel  string // uncompressed kernel image
	Initrd  string // initial RAM file system; "" for none
	Cmdline string // kernel arguments, after those the driver needs for its console

	CPUs   int   // virtual processors, at least 1
	Memory int64 // bytes, at least 128 MiB

	Disks   []Disk
	NIC     *NIC    // nil for none
	Shares  []Share // only with a [Sharer]
	Nested  bool    // the guest can run VMs itself; only with a [Nester]
	Console string  // file that receives the kernel's console; truncated at start

	// Logger receives what the driver works around; nil discards.
	Logger *slog.Logger
}

// MinMemory is the least memory that a VM can be given, in bytes.
const MinMemory = 128 << 20

// Validate returns what makes cfg unusable for any driver, or nil.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Name != "", "name is empty")
	check(c.Dir != "", "dir is empty")
	check(c.Kernel != "", "kernel is empty")
	check(c.Console != "", "console is empty")
	check(c.CPUs >= 1, "cpus is %d; a VM needs at least 1", c.CPUs)
	check(c.Memory >= MinMemory, "memory is %d MiB; a VM needs at least %d MiB", c.Memory>>20, MinMemory>>20)
	for i, d := range c.Disks {
		check(d.Path != "", "disk %d has no path", i)
		check(len(d.Serial) <= 20, "disk %d: serial %q is longer than 20 bytes", i, d.Serial)
	}
	tags := map[string]bool{}
	for _, s := range c.Shares {
		check(len(s.Tag) > 0 && len(s.Tag) <= 36, "share %s: tag %q has not 1 to 36 bytes", s.Dir, s.Tag)
		check(!tags[s.Tag], "two shares have the tag %q", s.Tag)
		check(s.Dir != "", "share %q has no directory", s.Tag)
		tags[s.Tag] = true
	}
	if n := c.NIC; n != nil {
		check(len(n.MAC) == 6, "nic: %q is no MAC address", n.MAC)
		check(n.MTU >= 1280 && n.MTU <= 65520, "nic: mtu %d is outside 1280 to 65520", n.MTU)
		check(n.Serve != nil, "nic: nothing serves it")
	}
	if len(errs) > 0 {
		return fmt.Errorf("vm config: %w", errors.Join(errs...))
	}
	return nil
}
