// Package vhostvsock is a virtio-vsock device that runs in a Go program: the
// vhost-user backend of QEMU's vhost-user-vsock-pci.
package vhostvsock
