// Package vhostfs is a file system device in user space (virtio-fs), over vhost-user. It
// carries the requests of the guest's FUSE to a server (package share), without a copy: the
// server reads and writes files straight from and to the guest's memory.
//
//	s, err := share.Open(share.Config{Dir: dir})
//	…
//	dev := vhostfs.New(s, 2, inflight, log)
//	err = dev.Serve(conn) // until QEMU is gone
//
// The guest's driver has a queue for each of its processors, up to the number that the device
// has. Requests of different queues, and of one queue, are served at the same time and finish
// in any order.
//
// Source: Virtual I/O Device (VIRTIO) 1.2, section 5.11.
package vhostfs
