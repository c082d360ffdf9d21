package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type cpioEntry struct {
	mode uint64
	data string
	rdev [2]uint64
}

// readCpio is the kernel's side of a newc archive.
func readCpio(t *testing.T, b []byte) (names []string, entries map[string]cpioEntry) {
	t.Helper()
	if len(b)%512 != 0 {
		t.Errorf("length %d is no multiple of 512", len(b))
	}
	entries = map[string]cpioEntry{}
	for at := 0; ; {
		if string(b[at:at+6]) != "070701" {
			t.Fatalf("no magic at %d", at)
		}
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		size, nameLen := int(field(6)), int(field(11))
		name := string(b[at+110 : at+110+nameLen-1])
		if name == "TRAILER!!!" {
			return names, entries
		}
		data := (at + 110 + nameLen + 3) &^ 3
		names = append(names, name)
		entries[name] = cpioEntry{field(1), string(b[data : data+size]), [2]uint64{field(9), field(10)}}
		at = (data + size + 3) &^ 3
	}
}

func testInitrd(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []string{"kernel/a/one.ko", "kernel/b/two.ko"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := makeInitrd([]byte("program"), []byte("tool"), dir, []modLine{{"vsock", "kernel/a/one.ko"}, {"disk", "kernel/b/two.ko"}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestInitrd(t *testing.T) {
	b := testInitrd(t)
	names, entries := readCpio(t, b)
	for name, want := range map[string]cpioEntry{
		"init":           {0o100755, "program", [2]uint64{}},
		"tmp":            {0o041777, "", [2]uint64{}},
		"lib64":          {0o120777, "system/usr/lib64", [2]uint64{}},
		"usr":            {0o120777, "system/usr", [2]uint64{}},
		"dev/console":    {0o020600, "", [2]uint64{5, 1}},
		"modules/one.ko": {0o100644, "kernel/a/one.ko", [2]uint64{}},
		"modules/order":  {0o100644, "vsock /modules/one.ko\ndisk /modules/two.ko\n", [2]uint64{}},
	} {
		if got := entries[name]; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if !bytes.Equal(b, testInitrd(t)) {
		t.Error("a second archive of the same files has other bytes")
	}

	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not installed: its opinion was not asked")
	}
	cmd := exec.Command(cpio, "-t", "--quiet")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, names) {
		t.Errorf("cpio lists %v, want %v", got, names)
	}
}

func TestCpioRefusesBadNames(t *testing.T) {
	for _, name := range []string{"", "/init", "a/../b", "a/", "./a"} {
		c := &cpioWriter{w: new(bytes.Buffer)}
		c.file(name, 0o644, nil)
		if c.close() == nil {
			t.Errorf("took the name %q", name)
		}
	}
}

func TestModOrder(t *testing.T) {
	var dep, builtin strings.Builder
	// Every module by itself, but for a chain of dependencies as depmod lists it.
	special := map[string]string{
		"erofs": "kernel/lib/libcrc32c.ko",
		"btrfs": "kernel/x/xor.ko kernel/x/raid6_pq.ko kernel/lib/libcrc32c.ko",
	}
	for _, g := range initrdModules {
		for _, name := range g.names {
			name, optional := strings.CutPrefix(name, "?")
			switch {
			case optional && name == "hv_sock": // this kernel has none
			case name == "vsock":
				builtin.WriteString("kernel/net/vsock.ko\n")
			default:
				fmt.Fprintf(&dep, "kernel/m/%s.ko: %s\n", strings.ReplaceAll(name, "_", "-"), special[name])
			}
		}
	}
	order, err := modOrder([]byte(dep.String()), []byte(builtin.String()))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range order {
		got = append(got, l.Group+" "+modName(l.File))
	}
	want := []string{
		"vsock vmw_vsock_virtio_transport_common", "vsock vmw_vsock_virtio_transport",
		"console virtio_console",
		"disk virtio_blk", "disk crc32c_intel", "disk crc32c_generic", "disk libcrc32c", "disk erofs",
		"disk raid6_pq", "disk xor", "disk btrfs",
		"net virtio_net", "net virtio_balloon", "net virtio_rng",
		"tap tun",
		"hyperv hv_vmbus", "hyperv hv_storvsc", "hyperv sd_mod", "hyperv hv_netvsc", "hyperv hv_utils",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, err := modOrder([]byte("kernel/a.ko:\n"), nil); err == nil {
		t.Error("took a kernel without vsock")
	}
}
