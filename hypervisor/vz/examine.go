package vz

import (
	"context"
	"errors"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

var _ hypervisor.Examiner = (*Driver)(nil)

// Examine looks at macOS, the hypervisor, the program's signature, and what only some Macs
// have.
func (d *Driver) Examine(context.Context) []hypervisor.Requirement {
	f := d.framework.Facts()
	list := []hypervisor.Requirement{
		{Name: "macOS", Found: f.Version, Err: f.checkVersion()},
		{Name: "hypervisor", Found: "it is on", Err: f.checkSupported()},
		{Name: "signature", Found: "lsub may run VMs", Err: d.checkTrial()},
		{Name: "VMs in VMs", Found: "distros can have them", Err: f.checkNested(), Optional: true},
	}
	if f.Rosetta != RosettaNone {
		list = append(list, hypervisor.Requirement{Name: "Rosetta", Found: "installed", Err: f.checkRosetta(), Optional: true})
	}
	for i, r := range list {
		if r.Err != nil && i > 0 {
			list[i].Found = ""
		}
	}
	return list
}

// checkRosetta returns why programs for Intel's processors do not run through Rosetta.
func (f Facts) checkRosetta() error {
	if f.Rosetta == RosettaReady {
		return nil
	}
	return hint.New(errors.New("Rosetta is not installed, so distros run no programs for Intel's processors through it"),
		"install it with 'softwareupdate --install-rosetta'")
}
