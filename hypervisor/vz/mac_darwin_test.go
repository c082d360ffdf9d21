//go:build darwin && cgo

package vz_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/guestfiles"
	"github.com/lsub/lsub/hypervisor/vz"
)

// TestConformanceMac runs the promises of all drivers on a Mac. The test program has to be
// signed: './task test:mac' does that.
func TestConformanceMac(t *testing.T) {
	if os.Getenv("LSUB_TEST_VM") != "1" {
		t.Skip("set LSUB_TEST_VM=1 to run the tests that boot a VM; './task test:mac' does")
	}
	guest := t.TempDir()
	if err := guestfiles.Make(guest, runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	hvtest.Conformance(t, hvtest.Harness{
		Driver: vz.New(vz.Options{}),
		Config: func(t *testing.T) hypervisor.Config {
			dir := t.TempDir()
			return hypervisor.Config{
				Name: "test", Dir: dir,
				Kernel: filepath.Join(guest, "kernel"), Initrd: filepath.Join(guest, "initrd"),
				Cmdline: "quiet", CPUs: 2, Memory: 512 << 20,
				Console: filepath.Join(dir, "console"), Logger: logger(t),
			}
		},
		Skip: map[string]string{
			"Killed": "nothing tells which process of the system a VM lives in",
			"Shares": "the test guest has no driver for virtio file systems",
		},
	})
}
