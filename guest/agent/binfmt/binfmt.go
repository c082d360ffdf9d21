// Package binfmt tells which programs for other processors run in the VM: those that an
// emulator is registered for in the kernel's list of binary formats (binfmt_misc).
package binfmt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// machines are the machines of ELF files, by the GOARCH for which lsub has images.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// Arches returns the processors, as GOARCH, whose programs run in every distro: the VM's
// first, then others in the alphabet's order. dir is where binfmt_misc is mounted.
func Arches(dir string) []string {
	var formats []format
	names, err := os.ReadDir(dir)
	if err == nil {
		for _, n := range names {
			text, err := os.ReadFile(filepath.Join(dir, n.Name()))
			if f, ok := parse(string(text)); err == nil && ok {
				formats = append(formats, f)
			}
		}
	}
	list := []string{runtime.GOARCH}
	for _, arch := range slices.Sorted(maps.Keys(machines)) {
		head := header(machines[arch])
		if arch != runtime.GOARCH && slices.ContainsFunc(formats, func(f format) bool { return f.matches(head) }) {
			list = append(list, arch)
		}
	}
	return list
}

// format is an entry of the list that the kernel finds by a file's first bytes.
type format struct {
	offset      int
	magic, mask []byte // a mask is as long as magic
}

// parse reads an entry as the kernel shows it: lines with a key and a value. It is of use in
// every distro if it is enabled and its interpreter was opened when it was registered (F):
// others are looked for in the distro that runs the program.
func parse(text string) (f format, ok bool) {
	enabled, fixed := false, false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch key {
		case "enabled":
			enabled = true
		case "flags:":
			fixed = strings.Contains(value, "F")
		case "offset":
			f.offset, err = strconv.Atoi(value)
		case "magic":
			f.magic, err = hex.DecodeString(value)
		case "mask":
			f.mask, err = hex.DecodeString(value)
		}
		if err != nil {
			return f, false
		}
	}
	if f.mask == nil {
		f.mask = bytes.Repeat([]byte{0xff}, len(f.magic))
	}
	return f, enabled && fixed && f.offset >= 0 && len(f.magic) > 0 && len(f.mask) == len(f.magic)
}

func (f format) matches(head []byte) bool {
	if f.offset > len(head) || len(f.magic) > len(head)-f.offset {
		return false
	}
	for i, b := range head[f.offset : f.offset+len(f.magic)] {
		if b&f.mask[i] != f.magic[i]&f.mask[i] {
			return false
		}
	}
	return true
}

// header returns the start of a program for a machine: as many bytes as the kernel looks at.
func header(m elf.Machine) []byte {
	head := make([]byte, 256)
	copy(head, elf.ELFMAG)
	head[elf.EI_CLASS], head[elf.EI_DATA], head[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	binary.LittleEndian.PutUint16(head[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(head[18:], uint16(m))
	binary.LittleEndian.PutUint32(head[20:], uint32(elf.EV_CURRENT))
	return head
}
