// Package vhostuser is the common part of virtio devices inside a Go program: the messages to
// and from QEMU (vhost-user), the guest's memory, and its split virtqueues. A kind of device
// combines a [Device] with [Queue]s and its own code (packages vhostvsock and vhostnet).
// Linux only, except for the decoders.
//
//	q := &vhostuser.Queue{Name: "tx"}
//	q.Service = func() bool { // at each kick
//		q.Lock()
//		defer q.Unlock()
//		if r := q.Ring(); r != nil {
//			// Available, Peek, Take, Put until there is nothing; then
//			q.Flush()
//		}
//		return false
//	}
//	dev := vhostuser.New(vhostuser.Config{Name: "example", Queues: []*vhostuser.Queue{q}, …})
//	err := dev.Serve(conn) // until QEMU is gone
//
// # Lifetimes
//
// A device belongs to one VM and is served once. A queue has a ring while the guest's driver
// is up. It loses the ring when the driver is reset, the VM is paused, or the memory is
// remapped; all of these wait for the queue's lock. So a ring, and slices of the guest's
// memory, are valid while the lock is held. Each queue with a ring has a goroutine that waits
// for kicks. Kick descriptors are never read, because Go's poller is edge-triggered.
//
// # A hostile guest
//
// The guest is not trusted. Each index, address and length is checked on a copy that the
// guest cannot change; the memory itself may change at any time. An invalid ring stops the
// device ([Device.Fail]) until the guest resets its driver. The front-end's messages are
// checked too, but it is trusted not to shrink the shared memory.
//
// # References
//
// Virtual I/O Device (VIRTIO) 1.2, section 2.7 (split virtqueues); QEMU,
// docs/interop/vhost-user.rst.
package vhostuser
