// Package distrofile reads and writes the small files of a distro that the agent works
// with: tables of users, settings, host names.
//
// A distro may have put anything in the place of such a file: a pipe, a device, a link
// out of its tree. [Read] and [ReadIn] read nothing but plain files on a disk. The
// writers work beneath an [os.Root], which no link leads out of. They differ in what
// becomes of the file that was there: [Create] removes it, [Replace] takes its place in
// one step, [Overwrite] keeps its owner and mode.
//
// [ReadSettings] reads /etc/wsl.conf and /etc/lsub.conf. The package is Linux only.
package distrofile
