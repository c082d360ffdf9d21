// Package share serves a directory of the host to a guest: it answers the requests of the
// guest's FUSE file system. How requests come and answers go is not its business: a carrier
// hands it the pieces of memory that hold them, such as buffers in the guest's memory
// (package vhostfs), or those of a stream ([ServeStream]).
//
//	s, err := share.Open(share.Config{Dir: "/home/ann/src", Writable: true, GuestUID: 1000, GuestGID: 1000})
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	n := s.Handle(ctx, request, answer) // of any number of goroutines
//
// # What a guest can reach
//
// The directory, and nothing above or beside it. A node is a file that the guest has looked
// up. Each request names a node and at most one name in it, which has no slash and is not
// "..", and the last step never follows a link: links are the guest's to follow. So there is
// no path that a race could lead astray. What is mounted below the directory on the host is
// part of it.
//
// # Descriptors
//
// A node has no descriptor of its own. It is known by its parent, its name there, and what
// identifies its inode; a descriptor is opened where one is needed, and checked to be of that
// inode. Open descriptors are kept in a list whose least recently used are closed. So the
// number of nodes and of open files is not bound by the descriptors that the process may
// have. Files that have lost their name, or could not be opened again, keep theirs.
//
// A node that the host has replaced, or moved elsewhere, ends with ESTALE, upon which the
// guest's kernel looks its path up again.
//
// # Owners
//
// All files that the host's user owns belong to one user of the guest, and the groups of the
// host's user to one group; others belong to nobody (65534). The guest's kernel checks
// permissions, and the host's again, with the rights of the host's user.
//
// References: include/uapi/linux/fuse.h, Documentation/filesystems/fuse of Linux 6.12.
package share
