// Package vhostnet is a network card whose frames are exchanged in the guest's memory:
// the back-end of QEMU's netdev vhost-user, inside of a Go program, and the
// implementation of [virtionet.Card]. The guest sees an ordinary virtio-net card. Linux only;
// elsewhere the package is empty.
//
// # Attaching it to QEMU
//
// The guest's memory must be shared, because the back-end copies straight from and to
// it. QEMU 7.2 wants a path to connect to (it does not know that an inherited descriptor
// can pass descriptors), and waits while it starts until the device is served:
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
// The card and the guest's driver leave checksums and the division into segments to
// each other, with frames of up to 64 KiB. What a frame needs is in its header, which
// passes as it is; nothing here looks at frames. So a driver has to take checksums and
// large segments (GUEST_CSUM, GUEST_TSO4, GUEST_TSO6) in the format of virtio 1
// (VERSION_1), as that of Linux does. One that does not is refused: the device stays
// stopped, with a log entry. Without MRG_RXBUF each buffer has to hold a whole frame;
// frames that are larger are dropped. What the guest sends may make use of the offloads
// or not.
//
// QEMU keeps the rest of the card by itself: its address, its MTU and the control queue,
// whose filters of addresses have no effect on the frames here.
//
// # A hostile guest
//
// A ring that makes no sense, or a frame without a whole header, stops the device until
// the guest resets its driver (see package vhostuser). The receiver gets slices of
// the guest's memory that were checked, and has to look at their content only once: it
// may change at any time. Frames of more than 128 KiB are dropped.
//
// # How it works
//
// A [Device.Send] copies from its parts into the guest's buffers under the queue's lock,
// in the goroutine of its caller; frames of 64 KiB take several. When there are too few
// none is taken, and the guest is asked to kick when it offers more. One goroutine takes
// the guest's frames, gives them to the receiver where they lie, and gives the memory
// back after it. Interrupts and kicks are spared by VIRTIO_RING_F_EVENT_IDX: a guest that is
// at work gets none.
//
// # References
//
// Virtual I/O Device (VIRTIO) 1.2, section 5.1 (network device); QEMU 7.2, net/vhost-user.c and
// hw/net/vhost_net.c; Linux, drivers/net/virtio_net.c.
package vhostnet
