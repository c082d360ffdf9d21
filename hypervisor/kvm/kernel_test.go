package kvm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vmlinux returns the smallest file that passes for an x86-64 kernel, with a note of the
// given type.
func vmlinux(note uint32) []byte {
	var b bytes.Buffer
	const notes = 64 + 56
	hdr := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(hdr.Ident[:], "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	binary.Write(&b, le, hdr)
	binary.Write(&b, le, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: notes, Filesz: 40})
	// A note that is not Xen's comes first.
	binary.Write(&b, le, []uint32{4, 0, note})
	b.WriteString("GNU\x00")
	binary.Write(&b, le, []uint32{4, 8, note})
	b.WriteString("Xen\x00")
	binary.Write(&b, le, uint64(0x1000000))
	return b.Bytes()
}

func TestCheckKernel(t *testing.T) {
	image := make([]byte, 64)
	copy(image[56:], "ARM\x64")
	bz := make([]byte, 1024)
	copy(bz[0x202:], "HdrS")
	arm := vmlinux(18)
	arm[18] = byte(elf.EM_AARCH64)
	for _, c := range []struct {
		name, arch string
		file       []byte
		want       string // "" for a valid kernel
	}{
		{"vmlinux", "amd64", vmlinux(18), ""},
		{"vmlinux without PVH", "amd64", vmlinux(17), "PVH"},
		{"vmlinux of another processor", "amd64", arm, "another processor"},
		{"bzImage", "amd64", bz, "compressed"},
		{"junk", "amd64", bytes.Repeat([]byte("junk"), 1000), "no uncompressed Linux kernel"},
		{"empty", "amd64", nil, "no uncompressed Linux kernel"},
		{"Image", "arm64", image, ""},
		{"gzip", "arm64", []byte("\x1f\x8b"), "no uncompressed Linux kernel for arm64"},
	} {
		path := filepath.Join(t.TempDir(), "kernel")
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		err := checkKernel(path, c.arch)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%s: %v, want an error with %q and the path", c.name, err, c.want)
		}
	}
	if err := checkKernel(t.TempDir(), "amd64"); err == nil {
		t.Error("a directory is a kernel")
	}
	if err := checkKernel(filepath.Join(t.TempDir(), "missing"), "amd64"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing kernel: %v", err)
	}
}

func FuzzHasNote(f *testing.F) {
	f.Add(vmlinux(18)[64+56:])
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x12\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if hasNote(b, binary.LittleEndian, "Xen\x00", 18) && !bytes.Contains(b, []byte("Xen\x00")) {
			t.Error("found a note that is not there")
		}
	})
}
