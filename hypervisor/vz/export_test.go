package vz

import "github.com/lsub/lsub/hypervisor"

// ConsoleOf returns the path of a VM's console, by which tests find its machine.
func ConsoleOf(v hypervisor.VM) string {
	if s, ok := v.(*savingVM); ok {
		v = s.vm
	}
	return v.(*vm).cfg.Console
}

// NewSettings is newSettings.
var NewSettings = newSettings

// RawConnField is rawConnField.
const RawConnField = rawConnField
