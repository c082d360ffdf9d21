package hvwindows_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
)

// writeDisk writes a virtual disk for a test.
func writeDisk(t *testing.T, size int64, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.vhdx")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if content == nil {
		err = hvwindows.WriteVHDX(f, size, nil)
	} else {
		err = hvwindows.WriteVHDX(f, size, bytes.NewReader(content))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVHDXByQEMU has QEMU check virtual disks, and read and write them.
func TestVHDXByQEMU(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("there is no qemu-img (./task setup)")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for _, size := range []int64{512, 1 << 20, 128 << 20, 4<<30 + 512, 64 << 30, 1 << 40, 5 << 40} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			path := writeDisk(t, size, nil)
			run("qemu-img", "check", "-f", "vhdx", path)
			if info := run("qemu-img", "info", "-f", "vhdx", "--output=json", path); !strings.Contains(info, fmt.Sprintf(`"virtual-size": %d,`, size)) {
				t.Errorf("of %d bytes: %s", size, info)
			}
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if most := int64(5<<20) + 2*size>>17; fi.Size() > most {
				t.Errorf("an empty disk of %d bytes takes %d", size, fi.Size())
			}
			// The last sector is behind all chunks.
			at := fmt.Sprint(size - 512)
			if out := run("qemu-io", "-f", "vhdx", "-c", "write -P 90 "+at+" 512", "-c", "read -P 90 "+at+" 512", path); strings.Contains(out, "verification failed") {
				t.Error(out)
			}
			run("qemu-img", "check", "-f", "vhdx", path)
		})
	}
	content := make([]byte, 3<<20+512)
	rand.Read(content)
	path, raw := writeDisk(t, int64(len(content)), content), filepath.Join(t.TempDir(), "raw")
	run("qemu-img", "check", "-f", "vhdx", path)
	run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, raw)
	if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, content) {
		t.Errorf("QEMU reads other content (%d bytes, %v)", len(got), err)
	}
}

// TestOpenVHDX has the stand-in read what the driver has written.
func TestOpenVHDX(t *testing.T) {
	f, err := os.Open(writeDisk(t, 1<<40, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d, err := hcstest.OpenVHDX(f); err != nil || d.Size != 1<<40 {
		t.Errorf("a disk of 1 TiB is read as %+v (%v)", d, err)
	}
	for _, size := range []int64{0, -512, 511, 65 << 40} {
		if err := hvwindows.WriteVHDX(f, size, nil); err == nil {
			t.Errorf("a disk of %d bytes was written", size)
		}
	}
}

// TestSystemDisk has a raw image that is read alone: a copy of it is made once.
func TestSystemDisk(t *testing.T) {
	h := harness(standIn())
	cfg := config(t)
	image := filepath.Join(t.TempDir(), "system.img")
	content := make([]byte, 1<<20+100)
	rand.Read(content)
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Disks = []hypervisor.Disk{{Path: image, ReadOnly: true, Serial: "system"}}
	var made os.FileInfo
	for i := range 2 {
		vm, _ := h.Boot(t, cfg)
		if got, want := h.Control(t, vm, "disks"), fmt.Sprintf("system:%d:ro", 1<<20+512); got != want {
			t.Errorf("the guest has the disk %q, want %q", got, want)
		}
		if err := vm.Close(); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(image + ".vhdx")
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && !os.SameFile(fi, made) {
			t.Error("the copy was made anew")
		}
		made = fi
	}
	if cfg.Disks[0].Path != image {
		t.Error("Start has changed the caller's disks")
	}
}
