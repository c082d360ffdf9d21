// Package images gives the VM what it boots and its distros what they start
// from.
//
//   - [OpenGuest] unpacks the kernel, initrd and system image that are embedded
//     in lsub, once per version of lsub.
//   - A [Source] gives the [Image] that a [Ref] names: [Debian] builds a root
//     file system with mmdebstrap and keeps it in the cache, [OCI] flattens a
//     container image of a registry into the cache, [Tarball] takes an archive, a
//     squashfs image or a saved container image from a file, [HTTPS] downloads
//     such a file of known sum.
//   - A [Catalogue] lists what servers offer, as names for addresses and sums:
//     [WSLCatalogue] reads WSL's manifests, [Simplestreams] an image server's.
//     [Online] merges and remembers them, [Resolve] finds a short name.
//
// An image is a tar archive of a root file system, known by the sha256 of its
// uncompressed bytes. It holds no user account and no identity of a machine:
// the guest's agent unpacks it once, and makes a distro of a snapshot of that.
//
//	ref, err := images.ParseRef("debian")
//	src := &images.Debian{CacheDir: dir}
//	img, err := src.Pull(ctx, ref, nil)
//	r, err := img.Open(ctx)
//	defer r.Close()
//	_, err = io.Copy(guest, r) // an error where the bytes are not those of img.ID
//
// The cache folder may be shared by any number of processes. Everything in it
// can be had again, so it may be deleted whenever no VM runs.
package images
