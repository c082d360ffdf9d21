package hvwindows_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/lsub/lsub/guest"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
)

// TestDisksArg holds the driver to the argument that the guest reads.
func TestDisksArg(t *testing.T) {
	cfg := full()
	text, err := hvwindows.NewDocument(&cfg, hcstest.Windows())
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		VirtualMachine struct {
			Chipset struct {
				LinuxKernelDirect struct{ KernelCmdLine string }
			}
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	args, err := guest.ParseBootArgs(d.VirtualMachine.Chipset.LinuxKernelDirect.KernelCmdLine)
	if want := []string{guest.SystemDisk, guest.DataDisk}; err != nil || !slices.Equal(args.Disks, want) {
		t.Errorf("the guest reads the disks %v (%v), want %v", args.Disks, err, want)
	}
}
