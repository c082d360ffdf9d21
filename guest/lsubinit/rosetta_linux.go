package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
)

// rosettaDir is where the share with Rosetta is mounted. Distros do not see it: the kernel
// opens the program once, for all of them.
const rosettaDir = "/run/lsub-rosetta"

// rosettaFormat has the kernel run programs for x86-64 through Rosetta. Magic and mask are
// those of Apple's "Running Intel Binaries in Linux VMs with Rosetta": the ELF header, of
// whatever ABI and for programs of fixed and of any address. C: with the program's own
// credentials; F: opened now.
// https://developer.apple.com/documentation/virtualization/running-intel-binaries-in-linux-vms-with-rosetta
const rosettaFormat = `:rosetta:M::` +
	`\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00:` +
	`\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:` +
	rosettaDir + `/rosetta:CF`

// offerRosetta has programs for x86-64 run through Rosetta, if the host shares it.
func offerRosetta() error {
	if found, err := hasVirtioFS("/sys/bus/virtio/devices"); err != nil || !found {
		return err
	}
	if err := os.MkdirAll(rosettaDir, 0o755); err != nil {
		return err
	}
	err := unix.Mount(guest.RosettaTag, rosettaDir, "virtiofs", unix.MS_RDONLY|unix.MS_NODEV, "")
	if errors.Is(err, unix.EINVAL) {
		return nil // the shares are others
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", guest.RosettaTag, err)
	}
	const formats = "/proc/sys/fs/binfmt_misc"
	fd, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC) // its module brings the directory along
	if err != nil {
		return fmt.Errorf("binfmt_misc: %w", err)
	}
	unix.Close(fd)
	if err := unix.Mount("binfmt_misc", formats, "binfmt_misc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount binfmt_misc: %w", err)
	}
	return os.WriteFile(filepath.Join(formats, "register"), []byte(rosettaFormat), 0)
}

// hasVirtioFS tells whether one of the virtio devices in a directory of sysfs is a file system
// (VIRTIO_ID_FS, 26).
func hasVirtioFS(devices string) (bool, error) {
	kinds, err := filepath.Glob(filepath.Join(devices, "*", "device"))
	if err != nil {
		return false, err
	}
	for _, k := range kinds {
		b, err := os.ReadFile(k)
		if err != nil {
			return false, err
		}
		if strings.TrimSpace(string(b)) == "0x001a" {
			return true, nil
		}
	}
	return false, nil
}
