package hypervisor

import "context"

// Paused is implemented by a VM that its hypervisor may halt by itself, for
// instance because the host's disk is full.
type Paused interface {
	// Paused returns nil while the VM runs, else why it stands still. A VM that its
	// hypervisor has halted goes on by itself when the cause is gone; one that its owner has
	// paused ([ErrPaused]) waits for [Pauser].Resume.
	Paused() error
}

// Pauser is implemented by a VM that its owner can halt for a while. Its processors stand
// still, its memory and its streams stay.
type Pauser interface {
	// Pause returns once no processor runs. A VM that is paused already stays so.
	Pause(ctx context.Context) error
	// Resume lets a paused VM go on. With a VM that runs it does nothing.
	Resume(ctx context.Context) error
}

// Balloon is implemented by a VM that can be asked to give memory back.
type Balloon interface {
	// SetMemory asks the guest to make do with size bytes of its memory, at most
	// Config.Memory. It does not wait: the guest follows as it can.
	SetMemory(ctx context.Context, size int64) error
}

// Saver is implemented by a VM whose state can be written to a file.
type Saver interface {
	// Save writes the state of a paused VM ([Pauser]) to a file that does not exist yet. Its
	// disks are not in it. The VM stays paused.
	Save(ctx context.Context, path string) error
}

// Described is implemented by a VM that can describe its hypervisor in more detail than
// by the driver's name.
type Described interface {
	// Description says it in a few words, as in "QEMU 7.2.22 with KVM".
	Description() string
}

// Restorer is implemented by a driver that can start a VM from what [Saver] has written.
type Restorer interface {
	// Restore is [Driver].Start for a saved VM. cfg has to describe the same devices, and the
	// disks have to be as they were. The VM that it returns is paused.
	Restore(ctx context.Context, cfg Config, path string) (VM, error)
}

// Sharer is implemented by a driver whose hypervisor can share directories. With another
// driver, Start refuses Config.Shares.
type Sharer interface {
	// CheckShare returns why a directory cannot be shared, or nil.
	CheckShare(s Share) error
}

// Nester is implemented by a driver whose VMs may run VMs themselves. With another driver,
// Start refuses Config.Nested.
type Nester interface {
	// CheckNested returns why this machine cannot do it, or nil.
	CheckNested(ctx context.Context) error
}

// Cardless is implemented by a driver whose hypervisor has no network card that this process
// could serve. Its Start refuses Config.NIC. The guest makes a card of its own instead (a tap
// device), and opens a vsock stream to the host for its frames, framed as [virtionet.Stream]
// says.
type Cardless interface {
	// NoCard returns why there is none.
	NoCard() error
}

// DiskMaker is implemented by a driver whose hypervisor takes no raw images for disks that the
// guest writes to. With another driver, an empty file of the disk's size will do.
type DiskMaker interface {
	// MakeDisk makes an empty disk of size bytes, a multiple of 512, in a file that does not
	// exist yet. The file takes room as the guest writes.
	MakeDisk(path string, size int64) error
}

// DisksArg is the name of a kernel argument of drivers whose disks have no serials, but are
// LUNs of one SCSI controller: lsub.disks=SERIAL,SERIAL,… in the order of the LUNs.
const DisksArg = "lsub.disks"

// Examiner is implemented by a driver that can list what it needs of the machine.
type Examiner interface {
	// Examine looks at each requirement. Where [Driver].Check fails, one of them is not met.
	Examine(ctx context.Context) []Requirement
}

// Requirement is something that VMs need, or that makes them better.
type Requirement struct {
	Name     string // one or two words, as in "QEMU"
	Found    string // what there is, in a few words; "" for nothing
	Err      error  // why it is not met, with a hint; nil where it is
	Optional bool   // VMs run without it
}
