// Package vhostnet is a network card that exchanges frames in the guest's memory: the
// back-end of QEMU's netdev vhost-user, inside a Go program. It implements [virtionet.Card].
// The guest sees an ordinary virtio-net card. Linux only; elsewhere the package is empty.
//
// # Attaching it to QEMU
//
// The guest's memory must be shared, because the back-end copies straight from and to it.
// QEMU 7.2 needs a path to connect to, because it does not know that an inherited descriptor
// can pass descriptors. At its start, it waits until the device is served:
//
//	qemu-system-x86_64 -m 1G \
//		-machine q35,memory-backend=mem \
//		-object memory-backend-memfd,id=mem,size=1G,share=on \
//		-chardev socket,id=c,path=S \
//		-netdev vhost-user,id=net,chardev=c \
//		-device virtio-net-pci,netdev=net \
//		...
//
// and in the program, which listens at S:
//
//	dev := vhostnet.New(network.Attach, log)
//	defer dev.Close()
//	dev.Serve(conn) // until QEMU is gone
//
// # Offloads
//
// The card and the guest's driver leave checksums and segmentation to each other, with frames
// of up to 64 KiB. A frame's header describes its offloads and passes unchanged; this package
// does not look at frames. So a driver must accept checksums and large segments (GUEST_CSUM,
// GUEST_TSO4, GUEST_TSO6) in the format of virtio 1 (VERSION_1), as that of Linux does. Other
// drivers are refused: the device stays stopped, with a log entry. Without MRG_RXBUF, each
// buffer must hold a whole frame; larger frames are dropped. The guest need not use the
// offloads for the frames that it sends.
//
// QEMU keeps the rest of the card: its address, its MTU and the control queue. The control
// queue's address filters have no effect on the frames here.
//
// # A hostile guest
//
// An invalid ring, or a frame without a whole header, stops the device until the guest resets
// its driver (see package vhostuser). The receiver gets checked slices of the guest's memory.
// It may read each byte only once, because the content may change at any time. Frames of more
// than 128 KiB are dropped.
//
// # How it works
//
// [Device.Send] copies from its parts into the guest's buffers under the queue's lock, in its
// caller's goroutine. A frame of 64 KiB takes several buffers. If there are too few, it takes
// none and asks the guest to kick when it offers more. One goroutine takes the guest's
// frames, passes them to the receiver in place, and then returns the memory.
// VIRTIO_RING_F_EVENT_IDX saves interrupts and kicks: a busy guest gets none.
//
// # References
//
// Virtual I/O Device (VIRTIO) 1.2, section 5.1 (network device); QEMU 7.2, net/vhost-user.c
// and hw/net/vhost_net.c; Linux, drivers/net/virtio_net.c.
package vhostnet
