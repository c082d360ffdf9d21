// Package rootfs decides which tar archives may become a distro's root file system. It is
// pure: it looks only at headers, and neither reads nor writes files.
//
// The same policy runs twice over each archive: on the host, so that the user learns of
// errors at once, and in the VM, which unpacks the archive and does not trust the host's
// check.
//
//	var st rootfs.State
//	for {
//		h, err := tr.Next()
//		if err == io.EOF {
//			return st.Finish()
//		}
//		if err := rootfs.CheckHeader(h, &st); err != nil {
//			return err
//		}
//		if rootfs.Skip(h) {
//			continue
//		}
//		name, _ := rootfs.Clean(h.Name) // relative, "." for the root itself
//	}
//
// The archive is one of a whole tree, as tar or docker export write it, so the policy is
// stricter than a general unpacker's:
//
//   - Names are relative. A leading "./" is allowed: "tar -C tree ." writes it.
//     A leading "/" is refused and not stripped: such an archive was made for
//     another place, so its links seldom work here.
//   - No component of a name or of a hard link's target is "..".
//   - No name and no hard link's target passes through a symbolic link of the
//     same archive: a tar of a real tree never does, and an unpacker that
//     followed the link could leave the tree. A link may point anywhere
//     (/etc/localtime points out of most trees); only passing through it is
//     refused.
//   - Devices are those that every Linux has in /dev and that give no access to
//     hardware or to other processes.
//   - The number of entries and the sum of their sizes are limited.
//
// The unpacker has one duty to make this safe: if a later entry has the path of an existing
// entry that is not a directory, it removes the existing one first and never follows it.
package rootfs

import (
	"archive/tar"
	"fmt"
	"hash/maphash"
	"math"
	"path"
	"strings"

	"github.com/lsub/lsub/rootfs/pax"
)

// Limits of a State whose fields are zero.
const (
	DefaultMaxBytes   = 256 << 30 // 256 GiB, the sum of the files' sizes
	DefaultMaxEntries = 8 << 20   // some 40 times a full desktop
)

// PATH_MAX and NAME_MAX of Linux: it cannot unpack longer names.
const (
	maxPath      = 4096 - 1
	maxComponent = 255
)

// State is CheckHeader's memory of the earlier entries. The zero value is ready for use, with
// the default limits. It is not safe for concurrent use.
type State struct {
	MaxBytes   int64 // limit for the sum of the entries' sizes; 0: DefaultMaxBytes
	MaxEntries int   // limit for the number of entries; 0: DefaultMaxEntries

	// Bytes and Entries are the sums so far, for a progress bar.
	Bytes   int64
	Entries int

	links  map[uint64]struct{} // hashes of the clean names of the symbolic links so far; nil for none
	seed   maphash.Seed        // of the hashes, so that nobody can make an archive with a collision
	usable bool                // a shell or an init was seen
	nested bool                // one was seen inside a directory
	saved  bool                // a file was seen that only "docker save" writes
	top    string              // the one directory that holds everything so far
	tops   int                 // 0, 1, or 2 for "more than one"
}

// EntryError says which entry of an archive is refused, and why.
type EntryError struct {
	Name   string // as in the archive
	Reason string // ends the sentence "archive entry NAME …"
	// BehindLink says that the entry or its link's target is behind a symbolic link of the
	// archive. A reader that first builds the tree in memory can accept such an archive.
	BehindLink bool
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("archive entry %q %s", shorten(e.Name), e.Reason)
}

// LimitError says that an archive exceeds its reader's limit.
type LimitError struct {
	What  string // "bytes" or "entries"
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("archive holds more than %d %s", e.Limit, e.What)
}

// UnusableError says that an archive is valid but not a root file system.
type UnusableError struct {
	Entries int    // 0: it is empty
	Dir     string // not "": the root file system is in this directory of it
	Saved   bool   // it is a saved container image (docker save, OCI layout)
}

func (e *UnusableError) Error() string {
	switch {
	case e.Entries == 0:
		return "archive is empty"
	case e.Saved:
		return "archive is a saved container image, not a root file system"
	case e.Dir != "":
		return fmt.Sprintf("archive is no root file system: that is in its directory %q", shorten(e.Dir))
	}
	return "archive is no root file system: it has neither /sbin/init nor a shell (/bin/sh)"
}

// CheckHeader returns nil if the entry of h may be unpacked after the entries in st, and adds
// it to st. Otherwise it returns an *EntryError or a *LimitError, and the whole archive must
// be refused. It does not change h.
func CheckHeader(h *tar.Header, st *State) error {
	if err := st.count(h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // comments, such as git archive's commit; counted, to bound their number
	}
	refuse := func(format string, a ...any) error {
		return &EntryError{Name: h.Name, Reason: fmt.Sprintf(format, a...)}
	}
	name, err := Clean(h.Name)
	if err != nil {
		return err
	}
	if l := st.linkAbove(name); l != "" {
		return &EntryError{h.Name, fmt.Sprintf("lies behind the symbolic link %q of the same archive", shorten(l)), true}
	}
	if name == "." && h.Typeflag != tar.TypeDir {
		return refuse("stands for the root directory but is none")
	}
	if !validID(h.Uid) || !validID(h.Gid) {
		return refuse("has owner %d:%d, which no Linux has", h.Uid, h.Gid)
	}

	isLink := false
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir, tar.TypeFifo, typeSocket: // archive/tar gives TypeReg for the old TypeRegA
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath || strings.ContainsRune(h.Linkname, 0) {
			return refuse("is a symbolic link without a valid target")
		}
		isLink = true
	case tar.TypeLink:
		if isLink, err = st.checkHardLink(h, name); err != nil {
			return err
		}
	case tar.TypeChar:
		if !HarmlessDevice(h.Devmajor, h.Devminor) {
			return refuse("is the character device %d:%d, which a distro has no use for", h.Devmajor, h.Devminor)
		}
	case tar.TypeBlock:
		return refuse("is the block device %d:%d, which a distro has no use for", h.Devmajor, h.Devminor)
	default:
		return refuse("has the unknown type %q", h.Typeflag)
	}
	st.note(name, isLink)
	return nil
}

// Skip reports whether the entry is accepted but not unpacked: comments, and sockets, which
// are useless without their process.
func Skip(h *tar.Header) bool {
	return h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == typeSocket
}

// typeSocket is the type of a unix socket in archives of star and some container tools.
const typeSocket = 's'

// Clean returns an entry's name as a path relative to the root of the tree,
// without "./", "//" or a slash at its end; "." is the root itself. The error
// is an *EntryError.
func Clean(name string) (string, error) {
	refuse := func(reason string) (string, error) {
		return "", &EntryError{Name: name, Reason: reason}
	}
	switch {
	case name == "":
		return refuse("has no name")
	case strings.HasPrefix(name, "/"):
		return refuse("has an absolute name")
	case len(name) > maxPath:
		return refuse("has a name that is too long")
	case strings.ContainsRune(name, 0):
		return refuse("has a zero byte in its name")
	}
	for c := range strings.SplitSeq(name, "/") {
		if c == ".." {
			return refuse(`has ".." in its name`)
		}
		if len(c) > maxComponent {
			return refuse("has a name that is too long")
		}
	}
	return path.Clean(name), nil
}

// Finish returns nil if the archive is a root file system, or an *UnusableError. Call it
// after the last entry.
func (st *State) Finish() error {
	if st.usable {
		return nil
	}
	e := &UnusableError{Entries: st.Entries, Saved: st.saved}
	if st.tops == 1 && st.nested {
		e.Dir = st.top
	}
	return e
}

// count adds the entry to the sums and checks the limits.
func (st *State) count(h *tar.Header) error {
	maxBytes, maxEntries := st.MaxBytes, st.MaxEntries
	if maxBytes == 0 {
		maxBytes = DefaultMaxBytes
	}
	if maxEntries == 0 {
		maxEntries = DefaultMaxEntries
	}
	if st.Entries >= maxEntries {
		return &LimitError{"entries", int64(maxEntries)}
	}
	st.Entries++
	size := h.Size
	if pax.Sparse(h) && size >= 0 {
		size = 0 // holes take no room; the archive's reader limits the data
	}
	if size < 0 || size > maxBytes-st.Bytes {
		return &LimitError{"bytes", maxBytes}
	}
	st.Bytes += size
	return nil
}

// checkHardLink checks the target of the hard link h, whose own clean name is name. It
// returns whether the target is a symbolic link: link(2) does not follow it, so the new name
// is a symbolic link too.
func (st *State) checkHardLink(h *tar.Header, name string) (isLink bool, err error) {
	refuse := func(reason string) (bool, error) {
		return false, &EntryError{Name: h.Name, Reason: reason}
	}
	target, err := Clean(h.Linkname)
	if err != nil || target == "." {
		return refuse(fmt.Sprintf("is a hard link to %q, out of the tree", shorten(h.Linkname)))
	}
	if l := st.linkAbove(target); l != "" {
		return false, &EntryError{h.Name, fmt.Sprintf("is a hard link to %q, behind the symbolic link %q of the same archive",
			shorten(h.Linkname), shorten(l)), true}
	}
	if target == name {
		return refuse("is a hard link to itself")
	}
	isLink = st.isLink(target)
	return isLink, nil
}

// linkAbove returns the symbolic link among name's parent directories, or "".
func (st *State) linkAbove(name string) string {
	if len(st.links) == 0 {
		return ""
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if st.isLink(name[:i]) {
			return name[:i]
		}
	}
	return ""
}

// isLink tells whether a clean name is that of a symbolic link.
func (st *State) isLink(name string) bool {
	if len(st.links) == 0 {
		return false
	}
	_, ok := st.links[maphash.String(st.seed, name)]
	return ok
}

// note records an accepted entry.
func (st *State) note(name string, isLink bool) {
	if isLink {
		if st.links == nil {
			st.links, st.seed = map[uint64]struct{}{}, maphash.MakeSeed()
		}
		st.links[maphash.String(st.seed, name)] = struct{}{}
	} else if len(st.links) > 0 {
		delete(st.links, maphash.String(st.seed, name)) // a later entry replaces the link
	}
	if name == "." {
		return
	}
	top, rest, _ := strings.Cut(name, "/")
	st.usable = st.usable || startsDistro(name)
	st.nested = st.nested || startsDistro(rest)
	switch name {
	case "oci-layout", "manifest.json", "repositories":
		st.saved = true
	}
	if st.tops == 0 {
		st.top, st.tops = strings.Clone(top), 1
	} else if top != st.top {
		st.tops = 2
	}
}

// startsDistro reports whether the file of that name is an init or a shell.
func startsDistro(name string) bool {
	switch name {
	case "sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd", "init",
		"bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/bash", "bin/busybox", "usr/bin/busybox":
		return true
	}
	return false
}

// HarmlessDevice reports whether every Linux has the character device: null devices, random
// numbers, and the process's own terminal. It also accepts 0:0, which cannot be opened: it is
// overlayfs's mark for a deleted file, in the data of container engines.
func HarmlessDevice(major, minor int64) bool {
	switch major {
	case 0:
		return minor == 0
	case 1: // null, zero, full, random, urandom
		return minor == 3 || minor == 5 || minor == 7 || minor == 8 || minor == 9
	case 5: // tty, console, ptmx
		return minor >= 0 && minor <= 2
	}
	return false
}

// validID reports whether id can own a file. For chown(2), the largest 32-bit number means
// "leave as it is".
func validID(id int) bool { return id >= 0 && int64(id) < math.MaxUint32 }

// shorten keeps a name from filling the terminal.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
