// Package images gets the root file systems that distros are made from.
//
// A [Source] returns the [Image] that a [Ref] names:
//
//   - [Debian] builds a root file system with mmdebstrap.
//   - [OCI] flattens the layers of a container image in a registry.
//   - [Tarball] reads an archive, a squashfs image or a saved container image
//     from a file.
//   - [HTTPS] downloads such a file, whose sum is known.
//
// An image is a tar archive of a root file system. The sha256 sum of its
// uncompressed bytes identifies it. It holds no user account and nothing that
// identifies a machine: the agent in the VM unpacks it once, and each distro
// starts as a snapshot of that.
//
//	ref, err := images.ParseRef("debian")
//	src := &images.Debian{CacheDir: dir}
//	img, err := src.Pull(ctx, ref, nil)
//	r, err := img.Open(ctx)
//	defer r.Close()
//	_, err = io.Copy(guest, r) // fails where the bytes do not match img.ID
//
// Any number of processes may share the cache directory. Everything in it can
// be downloaded or built again, so it may be deleted while no VM runs.
package images
