package kvm

import (
	"runtime"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/guestfiles"
)

// TestConformanceARM64 boots the guest for arm64 on machines of another kind, in emulation.
func TestConformanceARM64(t *testing.T) {
	needVM(t)
	if runtime.GOARCH == "arm64" {
		t.Skip("TestConformance is that here")
	}
	noLeak(t)
	dir := t.TempDir()
	if err := guestfiles.Make(dir, "arm64"); err != nil {
		t.Fatal(err)
	}
	hvtest.Conformance(t, harnessOf(Options{Arch: "arm64"}, func(t *testing.T) hypervisor.Config { return configOf(t, dir) }))
}
