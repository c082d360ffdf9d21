// Package vhosttest plays QEMU and a guest's driver for the tests of devices that are
// built with package vhostuser: a front-end with memory, and the driver's side of
// virtqueues, written anew so that it shares no mistake with what it tests. Linux
// only; elsewhere the package is empty.
//
//	vm := vhosttest.New(t, device.Serve)
//	defer vm.Close()
//	offer := vm.Handshake()
//	vm.SetFeatures(offer.Features)
//	vm.SetMemory()
//	ring := vm.NewRing(0, 128)
//	vm.Setup(0, ring, 0)
package vhosttest
