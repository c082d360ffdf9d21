// Package btrfs handles subvolumes of a btrfs by the kernel's ioctls, without the
// btrfs program.
//
// A distro is a subvolume, and may have further ones in it: docker's btrfs driver
// makes them, and systemd-tmpfiles (/var/lib/machines). A snapshot of the kernel's
// ends at those, so each function here works on the whole tree of subvolumes:
//
//	err := btrfs.Create("/data/staging/1")
//	err = btrfs.SetReadOnly("/data/staging/1")
//	err = btrfs.Snapshot("/data/staging/1", "/data/staging/2") // writable
//	err = btrfs.Delete("/data/staging/1")
//
// The package is Linux only.
package btrfs
