//go:build darwin && cgo

package vz

import "github.com/Code-Hex/vz/v3"

// kernelFormat is what the framework boots.
const kernelFormat = KernelBzImage

// rosetta is for Apple silicon.
func rosetta() Rosetta { return RosettaNone }

func rosettaShare() (vz.DirectoryShare, error) { return nil, ErrUnavailable }

// withSaving returns m: on Intel the framework saves no machines.
func withSaving(m *machine, _ *vz.VirtualMachineConfiguration, _ []byte) Machine { return m }
