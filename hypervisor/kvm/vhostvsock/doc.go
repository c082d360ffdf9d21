// Package vhostvsock is a virtio-vsock device inside a Go program: the back-end of QEMU's
// vhost-user-vsock-pci. The guest sees plain AF_VSOCK, the host has a [net.Conn] per stream,
// and nobody needs /dev/vhost-vsock, the vhost_vsock module, or any privilege. Linux only;
// elsewhere the package is empty.
//
// # Attaching it to QEMU
//
// The guest's memory must be shared, because the back-end copies straight from and to it.
// With QEMU 7.2 or newer, and one end of a socket pair as the child's descriptor 3:
//
//	qemu-system-x86_64 -m 1G \
//		-machine q35,memory-backend=mem \
//		-object memory-backend-memfd,id=mem,size=1G,share=on \
//		-chardev socket,id=vsock,fd=3 \
//		-device vhost-user-vsock-pci,chardev=vsock \
//		...
//
// On a machine of type microvm without PCI, the device is called vhost-user-vsock-device.
// Pass the other end of the pair to [Device.Serve]. Instead of a pair, path=S connects QEMU
// to a Unix socket that the program listens on. Close the child's end in the parent after the
// start: Serve returns when the last copy of it is closed.
//
//	dev := vhostvsock.New(vhostvsock.Config{GuestCID: 3})
//	defer dev.Close()
//	go dev.Serve(conn)                 // until QEMU is gone
//	c, err := dev.Dial(ctx, 1024)      // to the guest's port 1024
//	l, err := dev.Listen(1025)         // for the guest's streams to CID 2
//
// # Lifetimes
//
// A [Device] belongs to one VM and is served once. Dial and Listen may be called before: Dial
// waits for the guest's driver, as long as its context allows. When the front-end goes away
// or Close is called, every stream and listener fails with an error that wraps
// [net.ErrClosed]. Received bytes can still be read, including those that the guest sent just
// before it powered off.
//
// When the guest's driver restarts (a reboot), its streams fail with ECONNRESET and listeners
// stay. A VM that is paused and resumed keeps its streams. The device cannot tell the two
// apart until the driver is back, so the streams of a rebooting guest fail only then: use
// deadlines where that matters.
//
// # Streams
//
// Write returns when its bytes are in the guest's memory, so nothing is lost when Close
// follows, or even when the process ends. Close tells the guest and returns; the guest's
// confirmation, or a time limit, ends the stream. CloseWrite and CloseRead end one direction.
// Read returns [io.EOF] after the guest ended its direction, and ECONNRESET after it reset
// the stream. Write returns EPIPE when the guest no longer reads.
//
// A guest process that does not read blocks only its own writers: streams take turns, of at
// most 64 KiB, in the guest's one receive queue. A slow reader on the host blocks only its
// own writer in the guest, by credit.
//
// # A hostile guest
//
// The guest is not trusted. Each index, address and length is checked on a copy that the
// guest cannot change. An invalid ring stops the device, with a log entry, until the guest
// resets its driver. A stream that breaks the protocol is reset. Limits bound the streams,
// those that wait for Accept, the unread bytes and the unsent answers (see [Config]). Beyond
// them the guest is refused, or waits. The front-end's messages are checked too, but it is
// trusted not to shrink the shared memory.
//
// # How it works
//
// One goroutine waits for the guest's kicks on its transmit queue. It writes bytes straight
// to the writer of a WriteTo if that has a WriteNow. Otherwise it copies them into the slice
// of a waiting Read, or into the stream's buffer. Then it sends the answers of a batch. No
// goroutine exists only to send: a Write copies straight from its slice into the guest's
// buffers. If credit or buffers are missing, the goroutine that learns of more copies the
// rest of the waiting Writes, for all streams in turn. Used entries are published in batches,
// and VIRTIO_RING_F_EVENT_IDX saves most kicks and interrupts. Kick descriptors are never
// read: Go's poller is edge-triggered.
//
// # Limits
//
// Stream sockets only (no SOCK_SEQPACKET, no datagrams), split rings only, no live migration
// (QEMU refuses it), no in-flight log: a restarted program cannot take over a running VM.
//
// # References
//
// Virtual I/O Device (VIRTIO) 1.2, sections 2.7 (split virtqueues) and 5.10 (socket device);
// QEMU, docs/interop/vhost-user.rst; Linux, net/vmw_vsock/virtio_transport_common.c and
// drivers/vhost/vsock.c. Where the specification leaves a choice, this package follows Linux.
package vhostvsock
