// Package store keeps images, distros and snapshots as subvolumes of the data disk:
//
//	images/sha256-HEX    read-only
//	distros/ID
//	snapshots/DISTRO/ID  read-only
//	staging/…            unfinished subvolumes; emptied when the store opens
//
// A subvolume outside staging is complete: it was made in staging, flushed to the disk,
// and renamed. A distro starts as a snapshot of an image, and shares the blocks of all
// files that it does not change:
//
//	s, err := store.Open("/data", log)
//	err = s.ImportImage("sha256:…", archive)
//	err = s.CreateDistro(req, store.NoQuiesce)
//
// Errors have the code of the guest protocol. The package is Linux only.
package store
