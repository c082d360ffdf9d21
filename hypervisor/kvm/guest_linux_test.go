package kvm

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/guestfiles"
)

// guestDirEnv hands the guest's files to a test process that cannot make them: of another
// user, or in a VM. With makeGuestEnv the tests only make them, in that directory.
const (
	guestDirEnv  = "LSUB_TEST_GUEST_DIR"
	makeGuestEnv = "LSUB_TEST_MAKE_GUEST"
)

// guestDir holds the kernel and initrd that the tests boot. TestMain makes it if VMs are to
// be tested.
var guestDir string

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helper()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir := os.Getenv(makeGuestEnv)
	only := dir != ""
	var err error
	if !only {
		if guestDir = os.Getenv(guestDirEnv); guestDir != "" || os.Getenv("LSUB_TEST_VM") != "1" {
			return m.Run()
		}
		if dir, err = os.MkdirTemp("", "lsub-kvm"); err == nil {
			defer os.RemoveAll(dir)
		}
	}
	if err == nil {
		err = guestfiles.Make(dir, runtime.GOARCH)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "the guest of the tests:", err)
		return 1
	case only:
		return 0
	}
	guestDir = dir
	return m.Run()
}

// needVM skips the test unless VMs are to be tested.
func needVM(t *testing.T) {
	t.Helper()
	if guestDir == "" {
		t.Skip("set LSUB_TEST_VM=1 to run the tests that boot a VM")
	}
}

// config returns the tests' configuration of a VM.
func config(t *testing.T) hypervisor.Config {
	t.Helper()
	needVM(t)
	return configOf(t, guestDir)
}

// configOf returns the configuration of a VM that boots what guestfiles.Make has put into guestDir.
func configOf(t *testing.T, guestDir string) hypervisor.Config {
	t.Helper()
	// Not t.TempDir: its path is too long for a socket.
	dir, err := os.MkdirTemp("", "kvm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return hypervisor.Config{
		Name: "test", Dir: dir,
		Kernel: filepath.Join(guestDir, "kernel"), Initrd: filepath.Join(guestDir, "initrd"),
		Cmdline: "quiet", CPUs: 2, Memory: 256 << 20,
		Console: filepath.Join(dir, "console"), Logger: testLogger(t),
	}
}

// harness boots the guest with a driver that uses KVM or TCG, as the machine allows. The
// variables LSUB_ACCEL and LSUB_VSOCK choose, as they do for lsub.
func harness() hvtest.Harness {
	return harnessOf(Options{Accel: Accel(os.Getenv("LSUB_ACCEL")), VSock: VSock(os.Getenv("LSUB_VSOCK"))}, config)
}

func harnessOf(opts Options, config func(*testing.T) hypervisor.Config) hvtest.Harness {
	return hvtest.Harness{
		Driver: New(opts), Config: config,
		Kill: func(t *testing.T, v hypervisor.VM) {
			if err := v.(*vm).qemu.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		},
	}
}
