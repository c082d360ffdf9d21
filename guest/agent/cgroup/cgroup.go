// Package cgroup gives each distro a control group: to limit it, to end it, and to see
// what keeps it up.
//
// [SetUp] makes [Root], the group above those of all distros. A distro's group holds its
// limits, and below it a second one ([InsideGroup]) that the distro sees as the root of
// its groups. In there, the processes of lsub's commands are in [SessionsGroup]:
//
//	g, err := cgroup.New("debian-1", limits)
//	defer g.Remove()
//	g.FD() // where the distro's init starts
//
// The methods of a [Group] are safe for concurrent use. The package is Linux only.
package cgroup
