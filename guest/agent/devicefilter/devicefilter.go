// Package devicefilter keeps distros from opening the VM's own disks, which hold the files
// of all distros.
//
// Root in a distro sees every device: /dev is shared, and mknod makes the rest. A small BPF
// program on the control group above all distros decides about each device that a process
// below it opens or makes:
//
//	err := devicefilter.CloseDisks("/sys/fs/cgroup/distros")
//
// It is no security boundary: root in a distro can load kernel modules. It keeps a mistaken
// command or a tool from damaging the disk that all distros share.
package devicefilter

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// rule names devices that no distro opens or makes.
type rule struct {
	kind  int32 // block or char
	major uint32
	minor uint32 // or anyMinor
}

// The kinds of devices, and where struct bpf_cgroup_dev_ctx has what it is asked
// about, from linux/bpf.h.
const (
	block = 1 // BPF_DEVCG_DEV_BLOCK
	char  = 2 // BPF_DEVCG_DEV_CHAR

	kindAt  = 0 // in the lower half; the upper is read, write or mknod
	majorAt = 4
	minorAt = 8
)

const anyMinor = ^uint32(0)

// always are ways around the disks' file systems and into the kernel's memory
// that nothing in a distro has a use for.
var always = []rule{
	{char, 1, 1},         // /dev/mem
	{char, 1, 2},         // /dev/kmem
	{char, 1, 4},         // /dev/port
	{char, 10, 231},      // /dev/snapshot, the image of a hibernation
	{char, 21, anyMinor}, // /dev/sg*: commands to SCSI disks
}

// deny is a program that returns 0 for the devices of the rules, and 1, which
// lets them be, for all others.
func deny(rules []rule) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, kindAt, asm.Word),
		asm.And.Imm(asm.R2, 0xffff),
		asm.LoadMem(asm.R3, asm.R1, majorAt, asm.Word),
		asm.LoadMem(asm.R4, asm.R1, minorAt, asm.Word),
	}
	label := func(i int) string { return fmt.Sprintf("rule%d", i) }
	for i, r := range rules {
		code = append(code,
			asm.Mov.Imm(asm.R0, 0).WithSymbol(label(i)),
			asm.JNE.Imm(asm.R2, r.kind, label(i+1)),
			asm.JNE.Imm(asm.R3, int32(r.major), label(i+1)))
		if r.minor != anyMinor {
			code = append(code, asm.JNE.Imm(asm.R4, int32(r.minor), label(i+1)))
		}
		code = append(code, asm.Return())
	}
	return append(code, asm.Mov.Imm(asm.R0, 1).WithSymbol(label(len(rules))), asm.Return())
}
