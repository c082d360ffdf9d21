package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeELF returns a file with an interpreter, DT_NEEDED entries and a .modinfo
// section, each where it is not empty.
func fakeELF(t *testing.T, interp string, needed []string, modinfo string) []byte {
	t.Helper()
	le := binary.LittleEndian
	dynstr := []byte{0}
	var dynamic, names []byte
	for _, n := range needed {
		dynamic = le.AppendUint64(le.AppendUint64(dynamic, uint64(elf.DT_NEEDED)), uint64(len(dynstr)))
		dynstr = append(append(dynstr, n...), 0)
	}
	dynamic = append(dynamic, make([]byte, 16)...)
	const head, prog = 64, 56
	at := uint64(head + prog)
	var body, table bytes.Buffer
	section := func(name string, typ elf.SectionType, link uint32, entry uint64, data []byte) uint64 {
		start := at
		binary.Write(&table, le, elf.Section64{Name: uint32(len(names)), Type: uint32(typ), Off: at,
			Size: uint64(len(data)), Link: link, Entsize: entry})
		names = append(append(names, name...), 0)
		body.Write(data)
		at += uint64(len(data))
		return start
	}
	section("", elf.SHT_NULL, 0, 0, nil)
	section(".dynstr", elf.SHT_STRTAB, 0, 0, dynstr)
	section(".dynamic", elf.SHT_DYNAMIC, 1, 16, dynamic)
	section(".modinfo", elf.SHT_PROGBITS, 0, 0, []byte(modinfo))
	interpAt := section(".interp", elf.SHT_PROGBITS, 0, 0, []byte(interp+"\x00"))
	names = append(names, ".shstrtab\x00"...)
	nameTable := bytes.Clone(names)
	names = names[:len(names)-len(".shstrtab\x00")]
	section(".shstrtab", elf.SHT_STRTAB, 0, 0, nameTable)

	var out bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: head, Shoff: at,
		Ehsize: head, Phentsize: prog, Shentsize: 64, Shnum: 6, Shstrndx: 5}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	p := elf.Prog64{Type: uint32(elf.PT_NULL)}
	if interp != "" {
		p = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: interpAt, Filesz: uint64(len(interp) + 1)}
	}
	h.Phnum = 1
	for _, v := range []any{h, p, body.Bytes(), table.Bytes()} {
		if err := binary.Write(&out, le, v); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func writeTree(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := bytes.CutPrefix(data, []byte("-> ")); ok {
			if err := os.Symlink(string(target), p); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(p, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClosure(t *testing.T) {
	tree := t.TempDir()
	a := arches["amd64"]
	writeTree(t, tree, map[string][]byte{
		"usr/sbin/modprobe":                             []byte("-> ../bin/kmod"),
		"usr/bin/kmod":                                  fakeELF(t, "/lib64/ld-linux-x86-64.so.2", []string{"libz.so.1"}, ""),
		"usr/lib/x86_64-linux-gnu/libz.so.1":            []byte("-> libz.so.1.3"),
		"usr/lib/x86_64-linux-gnu/libz.so.1.3":          fakeELF(t, "", []string{"libc.so.6"}, ""),
		"usr/lib/x86_64-linux-gnu/libc.so.6":            fakeELF(t, "", []string{"ld-linux-x86-64.so.2"}, ""),
		"usr/lib64/ld-linux-x86-64.so.2":                []byte("-> /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
		"usr/lib/x86_64-linux-gnu/libunused.so":         fakeELF(t, "", nil, ""),
		"usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": fakeELF(t, "", nil, ""),
		"usr/bin/broken":                                fakeELF(t, "", []string{"libmissing.so"}, ""),
	})
	got, err := closure(tree, a, []string{"usr/sbin/modprobe"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"usr/bin/kmod", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6",
		"usr/lib/x86_64-linux-gnu/libz.so.1", "usr/lib/x86_64-linux-gnu/libz.so.1.3",
		"usr/lib64/ld-linux-x86-64.so.2", "usr/sbin/modprobe",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := closure(tree, a, []string{"usr/bin/broken"}); err == nil || !strings.Contains(err.Error(), "libmissing.so") {
		t.Errorf("got %v, want the missing library's name", err)
	}
}

func TestStageModules(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	mod := func(depends string) []byte { return fakeELF(t, "", nil, "license=GPL\x00depends="+depends+"\x00") }
	writeTree(t, src, map[string][]byte{
		"kernel/fs/a.ko":            mod(""),
		"kernel/drivers/bus.ko":     mod(""),
		"kernel/drivers/unused.ko":  mod("a"),
		"modules.builtin":           []byte("kernel/built-in.ko\n"),
		"modules.builtin.modinfo":   nil,
		"modules.order":             nil,
		"kernel/fs/b.ko.gz":         gzipped(mod("bus-two,built_in")),
		"kernel/drivers/bus_two.ko": mod("bus"),
	})
	rules, err := parseRules("keep kernel/ all\ndrop kernel/drivers/ none\n")
	if err != nil {
		t.Fatal(err)
	}
	kept, total, err := stageModules(src, dst, rules)
	if err != nil {
		t.Fatal(err)
	}
	if kept != 4 || total != 5 {
		t.Errorf("kept %d of %d, want 4 of 5", kept, total)
	}
	for _, f := range []string{"kernel/fs/a.ko", "kernel/fs/b.ko", "kernel/drivers/bus.ko", "kernel/drivers/bus_two.ko"} {
		if b, err := os.ReadFile(filepath.Join(dst, f)); err != nil || !bytes.HasPrefix(b, []byte("\x7fELF")) {
			t.Errorf("%s: %v, starts with %q", f, err, b[:min(4, len(b))])
		}
	}
}

func TestRules(t *testing.T) {
	rules, err := parseRules(rulesText)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"kernel/fs/btrfs/btrfs.ko.xz":                  true,
		"kernel/net/vmw_vsock/vsock.ko.xz":             true,
		"kernel/drivers/block/virtio_blk.ko.xz":        true,
		"kernel/drivers/net/virtio_net.ko.xz":          true,
		"kernel/drivers/net/wireguard/wireguard.ko.xz": true,
		"kernel/arch/x86/kvm/kvm-amd.ko.xz":            true,
		"kernel/drivers/usb/usbip/vhci-hcd.ko.xz":      true,
		"kernel/sound/core/snd.ko.xz":                  false,
		"kernel/drivers/gpu/drm/amd/amdgpu.ko.xz":      false,
		"kernel/drivers/net/ethernet/intel/e1000.ko":   false,
		"kernel/drivers/net/wireless/ath/ath.ko.xz":    false,
		"kernel/drivers/scsi/aacraid/aacraid.ko.xz":    false,
		"kernel/drivers/block/xen-blkfront.ko.xz":      false,
		"updates/mine.ko":                              false,
	} {
		if got := keeps(rules, path); got != want {
			t.Errorf("keeps %s: %v, want %v", path, got, want)
		}
	}
	for _, bad := range []string{"keep kernel/", "hold kernel/ reason", "keep a x\ndrop a y"} {
		if _, err := parseRules(bad); err == nil {
			t.Errorf("took the rules %q", bad)
		}
	}
}
