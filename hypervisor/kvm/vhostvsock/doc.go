// Package vhostvsock is a virtio-vsock device that runs inside a Go program:
// the backend of QEMU's vhost-user-vsock-pci. The guest sees plain AF_VSOCK, the
// host has a [net.Conn] per stream, and nobody needs /dev/vhost-vsock, the
// vhost_vsock module, or any privilege. Linux only; elsewhere the package is
// empty.
//
// # Attaching it to QEMU
//
// The guest's memory must be shared, because the backend copies straight from
// and to it. With QEMU 7.2 or newer, and one end of a socket pair as the child's
// descriptor 3:
//
//	qemu-system-x86_64 -m 1G \
//		-machine q35,memory-backend=mem \
//		-object memory-backend-memfd,id=mem,size=1G,share=on \
//		-chardev socket,id=vsock,fd=3 \
//		-device vhost-user-vsock-pci,chardev=vsock \
//		...
//
// On a machine of type microvm without PCI the device is called
// vhost-user-vsock-device. The other end of the pair goes to [Device.Serve].
// Instead of a pair, path=S connects QEMU to a Unix socket that the program
// listens on. Close the child's end in the parent after the start: Serve
// returns when the last copy of it is closed.
//
//	dev := vhostvsock.New(vhostvsock.Config{GuestCID: 3})
//	defer dev.Close()
//	go dev.Serve(conn)                 // until QEMU is gone
//	c, err := dev.Dial(ctx, 1024)      // to the guest's port 1024
//	l, err := dev.Listen(1025)         // for the guest's streams to CID 2
//
// # Lifetimes
//
// A [Device] belongs to one VM and is served once. Dial and Listen may come
// before: Dial waits, as long as its context lets it, until the guest's driver
// is up. When the front-end goes away or Close is called, every stream and
// listener fails with an error that wraps [net.ErrClosed]; bytes that were
// received can still be read. What the guest sent before it powered off is
// received.
//
// When the guest's driver starts anew (a reboot), its streams fail with
// ECONNRESET and listeners stay. A VM that is paused and goes on keeps its
// streams. The two look alike until the driver is back, so streams of a guest
// that reboots fail only then: use deadlines where that matters.
//
// # Streams
//
// Write returns when its bytes are in the guest's memory, so nothing is lost
// when Close follows, or even when the process ends. Close tells the guest and
// returns; the guest's confirmation, or a time limit, ends the stream.
// CloseWrite and CloseRead end one direction. Reading returns [io.EOF] after
// the guest ended its direction, and ECONNRESET after it reset the stream;
// writing returns EPIPE when the guest reads no more.
//
// A guest process that does not read stops its own writers only: streams take
// turns, of at most 64 KiB, in the guest's one receive queue. A host reader
// that is slow stops only its own guest writer, by credit.
//
// # A hostile guest
//
// The guest is not trusted. Each index, address and length is checked on a copy
// that the guest cannot change. A ring that makes no sense stops the device,
// with a log entry, until the guest resets its driver; a stream that breaks
// the protocol is reset. Streams, streams that wait for Accept, bytes that wait
// to be read and answers that wait to be sent are bounded (see [Config]);
// beyond them the guest is refused, or waits. The front-end's messages are
// checked too, but it is trusted not to shrink the memory that it shared.
//
// # How it works
//
// One goroutine waits for the guest's kicks on its transmit queue. It has bytes
// written straight to where a WriteTo writes, if that has a WriteNow, or copies them into
// the slice of a waiting Read, or else into the stream's buffer, and sends the answers
// of a batch. Nobody waits to send: a Write copies
// straight from its slice into the guest's buffers; when credit or buffers are
// missing, it is the goroutine that learns of more that copies what a waiting
// Write has left, for all streams in turn. Used entries are published in
// batches, and VIRTIO_RING_F_EVENT_IDX spares most kicks and interrupts. Kick
// descriptors are never read: Go's poller is edge-triggered.
//
// # Limits
//
// Stream sockets only (no SOCK_SEQPACKET, no datagrams), split rings only, no
// live migration (QEMU refuses it), no in-flight log: a restarted program
// cannot take over a running VM.
//
// # References
//
// Virtual I/O Device (VIRTIO) 1.2, sections 2.7 (split virtqueues) and 5.10
// (socket device); QEMU, docs/interop/vhost-user.rst; Linux,
// net/vmw_vsock/virtio_transport_common.c and drivers/vhost/vsock.c, whose
// choices this package follows where the specification leaves one.
package vhostvsock
