package vz_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/guestfiles"
	"github.com/lsub/lsub/hypervisor/kvm"
	"github.com/lsub/lsub/hypervisor/vz"
	"github.com/lsub/lsub/hypervisor/vz/vztest"
	"github.com/lsub/lsub/virtionet"
)

// engine is QEMU with the devices that the framework has: frames as datagrams, and a virtio
// console alone.
func engine(arch string) hypervisor.Driver {
	return kvm.New(kvm.Options{Framing: virtionet.Datagram, VirtioConsole: true, Arch: arch})
}

// TestConformanceVM runs the promises of all drivers with the real guest.
func TestConformanceVM(t *testing.T) { testReal(t, runtime.GOARCH) }

// TestConformanceARM64 boots the guest of Apple silicon, on a machine of another kind. It runs
// the tests in which the guest's kernel differs.
func TestConformanceARM64(t *testing.T) {
	if runtime.GOARCH == "arm64" {
		t.Skip("TestConformanceVM is that here")
	}
	testReal(t, "arm64", "Boot", "ConsoleLog", "Disks", "Frames", "Pause", "Balloon")
}

// testReal runs all tests, or only some, with the guest for a processor.
func testReal(t *testing.T, arch string, only ...string) {
	if os.Getenv("LSUB_TEST_VM") != "1" {
		t.Skip("set LSUB_TEST_VM=1 to run the tests that boot a VM")
	}
	noLeak(t)
	guest, err := os.MkdirTemp("", "lsub-vz")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(guest)
	if err := guestfiles.Make(guest, arch); err != nil {
		t.Fatal(err)
	}
	f := &vztest.Framework{Engine: engine(arch), Mac: vztest.Mac(), Saves: true, KeepConsole: true}
	hvtest.Conformance(t, hvtest.Harness{
		Only:   only,
		Driver: vz.NewWith(f, vz.Options{}),
		Config: func(t *testing.T) hypervisor.Config {
			dir := t.TempDir()
			return hypervisor.Config{
				Name: "test", Dir: dir,
				Kernel: filepath.Join(guest, "kernel"), Initrd: filepath.Join(guest, "initrd"),
				Cmdline: "quiet", CPUs: 2, Memory: 256 << 20,
				Console: filepath.Join(dir, "console"), Logger: logger(t),
			}
		},
		Kill: func(t *testing.T, vm hypervisor.VM) { killQEMU(t, vz.ConsoleOf(vm)) },
		Skip: map[string]string{"Shares": "QEMU shares no directories by itself; TestConformance has shares"},
	})
}

// killQEMU kills the child process that has a VM's console file.
func killQEMU(t *testing.T, console string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		line, err := os.ReadFile(p)
		if err != nil || !containsAll(string(line), "qemu-system", console) {
			continue
		}
		var pid, parent int
		fmt.Sscanf(filepath.Base(filepath.Dir(p)), "%d", &pid)
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		fmt.Sscanf(after(string(stat), "PPid:"), "%d", &parent)
		if parent != os.Getpid() {
			continue
		}
		proc, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := proc.Kill(); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no QEMU has the console %s", console)
}

func containsAll(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// after returns what follows a word.
func after(text, word string) string {
	_, rest, _ := strings.Cut(text, word)
	return rest
}
