// Package procfs reads from /proc what the kernel says about single processes
// ([Name], [HasTerminal], [IsExiting]) and about the whole VM: its memory ([Memory]),
// its load ([LoadNow]), and which CPU handles the interrupts of the vsock device
// ([VsockCPU]).
//
// A process may end at any moment; the functions then answer as for one that has
// ended. The package is Linux only.
package procfs
