//go:build darwin && cgo

package vz

import "github.com/Code-Hex/vz/v3"

var _ Saving = (*savableMachine)(nil)

// kernelFormat is what the framework boots.
const kernelFormat = KernelImage

func rosetta() Rosetta {
	switch vz.LinuxRosettaDirectoryShareAvailability() {
	case vz.LinuxRosettaAvailabilityInstalled:
		return RosettaReady
	case vz.LinuxRosettaAvailabilityNotInstalled:
		return RosettaMissing
	}
	return RosettaNone
}

func rosettaShare() (vz.DirectoryShare, error) {
	share, err := vz.NewLinuxRosettaDirectoryShare()
	if err != nil {
		return nil, err
	}
	return share, nil
}

// savableMachine is a machine that macOS 14 can save.
type savableMachine struct {
	*machine
	id []byte
}

// withSaving returns m as one that can be saved, if the framework says that it can.
func withSaving(m *machine, config *vz.VirtualMachineConfiguration, id []byte) Machine {
	if ok, err := config.ValidateSaveRestoreSupport(); err != nil || !ok {
		return m
	}
	return &savableMachine{m, id}
}

func (m *savableMachine) Save(path string) error { return wrap(m.vm.SaveMachineStateToPath(path)) }

func (m *savableMachine) Restore(path string) error {
	return wrap(m.vm.RestoreMachineStateFromURL(path))
}

func (m *savableMachine) Identifier() []byte { return m.id }
