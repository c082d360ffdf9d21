// Package archive turns a directory tree into a tar archive and back, as exports and
// imports of distros need it: nothing of a tree is lost on the way, and nothing in an
// archive can harm the VM.
//
//	err := archive.Pack(ctx, "/data/distros/debian-1", send, note)
//	err = archive.Unpack("/data/staging/1", r, &rootfs.State{})
//
// [Unpack] reads the archive on one goroutine, and makes files on all CPUs (extractPool).
// [Pack] reads files ahead, and sends one frame while it fills the next (frameWriter). The
// package is Linux only.
package archive
