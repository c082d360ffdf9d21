// Package manifest describes a guest: the kernel, initrd and system image that
// a utility VM boots. Command guestbuild writes the description beside the files,
// package guestimage reads it.
package manifest

// Name is the name of the manifest's file beside the guest's files.
const Name = "manifest.json"

// Manifest says what a built guest consists of. It holds no time and no path:
// the same inputs give the same bytes.
type Manifest struct {
	Arch   string `json:"arch"`   // Go's name: amd64, arm64
	Kernel string `json:"kernel"` // kernel release, as uname -r prints it
	Suite  string `json:"suite"`  // Debian suite the packages are from

	Files    Files             `json:"files"`
	Packages map[string]string `json:"packages"` // Debian package name to version
}

// Files are a guest's three files.
type Files struct {
	KernelImage File `json:"kernel"` // ELF vmlinux (amd64; a bzImage for macOS), Image (arm64)
	Initrd      File `json:"initrd"` // plain newc cpio archive
	System      File `json:"system"` // EROFS image, mounted on /system in the VM
}

// File is one file of a guest, described as it is uncompressed.
type File struct {
	SHA256 string `json:"sha256"` // hexadecimal
	Size   int64  `json:"size"`   // bytes
}
