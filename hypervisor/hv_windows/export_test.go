package hvwindows

import "github.com/lsub/lsub/hypervisor"

// Names that tests use.
var (
	NewDocument = newDocument
	WriteVHDX   = writeVHDX
	ExitError   = exitError
	SystemID    = systemID
)

// IDOf returns a VM's identifier.
func IDOf(v hypervisor.VM) string { return systemID(v.(*vm).cfg) }
