package kvm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// checkKernel returns why QEMU cannot boot a file, or nil. QEMU's own messages speak of ROMs
// and ELF notes. If it takes a kernel for another kind of file, the boot may hang silently.
func checkKernel(path, arch string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return fmt.Errorf("kernel: %w", err)
	} else if !fi.Mode().IsRegular() {
		return fmt.Errorf("kernel %s is no regular file", path)
	}
	check := checkVMLinux
	if arch == "arm64" {
		check = checkImage
	}
	if err := check(f); err != nil {
		return fmt.Errorf("kernel %s: %w", path, err)
	}
	return nil
}

// checkVMLinux requires an x86-64 ELF file with a PVH entry (the note
// XEN_ELFNOTE_PHYS32_ENTRY; docs: xen/include/public/elfnote.h).
func checkVMLinux(r io.ReaderAt) error {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0x202); err == nil && string(magic[:]) == "HdrS" {
		return errors.New("it is compressed (a bzImage); lsub boots the uncompressed vmlinux")
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return fmt.Errorf("it is no uncompressed Linux kernel: %w", err)
	}
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("it is for another processor (%v)", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(io.LimitReader(p.Open(), 64<<10))
		if err != nil {
			return fmt.Errorf("its notes: %w", err)
		}
		if hasNote(notes, f.ByteOrder, "Xen\x00", 18) {
			return nil
		}
	}
	return errors.New("it has no PVH entry (CONFIG_PVH)")
}

// hasNote looks for a note in an ELF note segment: three words (the sizes of
// name and content, the type), then both, each padded to 4 bytes.
func hasNote(b []byte, order binary.ByteOrder, name string, kind uint32) bool {
	pad := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(b) >= 12 {
		nameLen, descLen, k := order.Uint32(b), order.Uint32(b[4:]), order.Uint32(b[8:])
		b = b[12:]
		if pad(nameLen)+pad(descLen) > uint64(len(b)) {
			return false
		}
		if k == kind && bytes.Equal(b[:nameLen], []byte(name)) {
			return true
		}
		b = b[pad(nameLen)+pad(descLen):]
	}
	return false
}

// checkImage requires an uncompressed arm64 Image (Documentation/arch/arm64/booting.rst).
func checkImage(r io.ReaderAt) error {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 56); err != nil || string(magic[:]) != "ARM\x64" {
		return errors.New("it is no uncompressed Linux kernel for arm64 (Image)")
	}
	return nil
}
