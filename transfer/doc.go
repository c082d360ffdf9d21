// Package transfer copies files and directory trees from one file system to another over a
// pair of byte streams. One side calls [Send], the other [Receive]; neither knows where the
// other is:
//
//	go transfer.Send(ctx, w, have, transfer.SendOptions{Sources: []string{"src"}})
//	err := transfer.Receive(ctx, r, haveWriter, transfer.ReceiveOptions{Dest: "/tmp/"})
//
// What arrives has the bytes, holes, permissions and times of what was sent. Symbolic links
// stay links, and several names of one file stay names of one file. Owners do not travel: what
// arrives belongs to who receives it. Setuid, setgid and sticky bits, and extended attributes,
// do not travel either.
//
// A file gets its name when it is whole. Until then it has the name [PartName], beside its
// final one; where the copy breaks off, a long one stays under that name, and a copy with
// Resume goes on with it.
//
// The receiver trusts nobody: whatever the sender says, nothing outside the destination is
// written, and links are not followed out of it ([os.Root]).
//
// On the wire, the sender writes a [preamble] in a line of JSON, then a tar archive (package
// rootfs/pax), in which [shortenTime] has shortened times. If the preamble asks for it, the receiver answers before the archive begins with
// what it has already: a line of JSON for each file, and an empty line.
package transfer
