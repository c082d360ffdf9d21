package images

import (
	"archive/tar"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/rootfs"
)

// programs are looked at to find a root file system's architecture: inits and
// shells. Every distro has one of them as a file. Other programs may be meant
// for an emulator.
var programs = []string{
	"usr/lib/systemd/systemd", "lib/systemd/systemd", "sbin/init", "usr/sbin/init",
	"bin/bash", "usr/bin/bash", "bin/dash", "usr/bin/dash", "bin/busybox", "usr/bin/busybox", "bin/sh", "usr/bin/sh",
}

// elfMachines lists, for each GOARCH, the machines whose programs its kernel
// runs. Not every processor still runs the 32-bit ones.
var elfMachines = map[string][]elf.Machine{
	"amd64": {elf.EM_X86_64, elf.EM_386},
	"arm64": {elf.EM_AARCH64, elf.EM_ARM},
}

// Arches lists the architectures that images may be for, as GOARCH.
func Arches() []string { return slices.Sorted(maps.Keys(elfMachines)) }

// elfNames are the names that GOARCH has for machines.
var elfNames = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_386: "386", elf.EM_AARCH64: "arm64", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
	elf.EM_PPC64: "ppc64", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64", elf.EM_MIPS: "mips",
}

// archFinder finds the architecture of an archive's programs while the archive
// is read. The archive's name and a catalogue may be wrong about it.
type archFinder struct {
	found map[string]elf.Machine // by the program's name
}

// elfHead is how many bytes of a program are needed to find its machine.
const elfHead = 20

// entry looks at an entry that rootfs accepts, with r at its content.
func (f *archFinder) entry(h *tar.Header, r io.Reader) error {
	name, err := rootfs.Clean(h.Name)
	if err != nil || !slices.Contains(programs, name) {
		return nil
	}
	delete(f.found, name) // a later entry takes an earlier one's place
	if h.Typeflag != tar.TypeReg || h.Size < elfHead {
		return nil
	}
	head := make([]byte, elfHead)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	if string(head[:len(elf.ELFMAG)]) != elf.ELFMAG {
		return nil // a script
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	if f.found == nil {
		f.found = map[string]elf.Machine{}
	}
	f.found[name] = elf.Machine(order.Uint16(head[18:]))
	return nil
}

// check returns an error, after the last entry, where none of the programs runs
// on an architecture ("" is the host's).
func (f *archFinder) check(arch string) error {
	arch = cmp.Or(arch, runtime.GOARCH)
	runs, known := elfMachines[arch]
	if !known {
		return nil
	}
	var first string
	for _, name := range programs {
		m, ok := f.found[name]
		if ok && slices.Contains(runs, m) {
			return nil
		}
		if ok && first == "" {
			first = name
		}
	}
	if first == "" {
		return nil
	}
	other := elfNames[f.found[first]]
	if other == "" {
		other = fmt.Sprintf("machine %d", uint16(f.found[first]))
	}
	return hint.New(fmt.Errorf("is for %s, not for %s, as its /%s shows", other, arch, first), "get the one for "+arch)
}
