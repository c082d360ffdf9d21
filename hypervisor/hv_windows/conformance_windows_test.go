package hvwindows_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/guestfiles"
)

// TestConformanceWindows runs the promises of all drivers on Windows, in real VMs.
// tools/windows-report.ps1 runs it.
func TestConformanceWindows(t *testing.T) {
	if os.Getenv("LSUB_TEST_VM") != "1" {
		t.Skip("set LSUB_TEST_VM=1 to run the tests that boot a VM")
	}
	if standInHandles.Find() == nil {
		t.Skip("computecore.dll is the stand-in of ./task test:wine, which starts no VM")
	}
	guest := t.TempDir()
	if err := guestfiles.Make(guest, runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	h := hvtest.Harness{
		Driver: hvwindows.New(hvwindows.Options{}),
		Config: func(t *testing.T) hypervisor.Config {
			dir := t.TempDir()
			return hypervisor.Config{
				Name: "lsub-test", Dir: dir,
				Kernel: filepath.Join(guest, "kernel"), Initrd: filepath.Join(guest, "initrd"),
				Cmdline: "quiet", CPUs: 2, Memory: 512 << 20,
				Console: filepath.Join(dir, "console"), Logger: logger(t),
			}
		},
		Kill: func(t *testing.T, vm hypervisor.VM) {
			if out, err := exec.Command("hcsdiag", "kill", hvwindows.IDOf(vm)).CombinedOutput(); err != nil {
				t.Fatalf("hcsdiag kill: %v: %s", err, out)
			}
		},
		Skip: map[string]string{"Nested": "the test guest runs no VM; the start of such a VM is all that it would show"},
	}
	if err := exec.Command("hcsdiag", "list").Run(); err != nil {
		h.Skip["Killed"] = "hcsdiag, which ends VMs, needs an administrator: " + err.Error()
	}
	hvtest.Conformance(t, h)
}
