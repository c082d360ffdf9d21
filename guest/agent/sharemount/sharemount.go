// Package sharemount mounts directories of the host in the VM. They come by virtio-fs, which
// the kernel speaks by itself, or by a stream to the host, which carries the requests of the
// kernel's FUSE.
package sharemount
