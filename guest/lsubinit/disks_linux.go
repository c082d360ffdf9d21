package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lsub/lsub/guest/agent/devicefilter"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/btrfs"
	"github.com/lsub/lsub/guest/agent/cgroup"
)

const (
	dataDir    = "/data"
	modulesDir = "/system/usr/lib/modules"
)

// mountDisks mounts the system image and the data disk. Distros see them only through these
// mounts. It also creates the device nodes that the system image lists.
func mountDisks(luns []string, t *trace, log *slog.Logger) error {
	system, err := awaitDisk(guest.SystemDisk, luns)
	if err != nil {
		return err
	}
	device, err := awaitDisk(guest.DataDisk, luns)
	if err != nil {
		return err
	}
	var filter sync.WaitGroup
	defer filter.Wait()
	filter.Go(func() {
		if err := t.step("device filter", func() error { return devicefilter.CloseDisks(cgroup.Root) }); err != nil {
			log.Warn("root in a distro can open the VM's disks", "err", err)
		}
	})
	if err := t.step("system image", func() error {
		return mount(system, "/system", "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
	}); err != nil {
		return err
	}
	if err := makeDevices(modulesDir); err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	empty, err := isEmpty(device)
	if err != nil {
		return err
	}
	if empty {
		if err := t.step("make the data disk", func() error { return makeData(device) }); err != nil {
			return err
		}
	}
	return t.step("data disk", func() error {
		if err := mount(device, dataDir, "btrfs", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, "discard=async"); err != nil {
			return err
		}
		// The host may have enlarged the disk since the last boot.
		if err := btrfs.Grow(dataDir); err != nil {
			log.Warn("the data disk keeps its size", "err", err)
		}
		readLessAhead(log)
		return nil
	})
}

// readLessAhead sets the kernel's read-ahead to 512 KiB, from btrfs' 4 MiB. Distros share no
// memory for their files, so unneeded parts of libraries cost memory in each of them: about a
// sixth of its page cache.
func readLessAhead(log *slog.Logger) {
	settings, _ := filepath.Glob("/sys/class/bdi/btrfs-*/read_ahead_kb")
	for _, s := range settings {
		if err := os.WriteFile(s, []byte("512"), 0); err != nil {
			log.Warn("the data disk is read far ahead", "err", err)
		}
	}
}

func mount(device, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// diskTimeout bounds how long a LUN may take to appear. The kernel looks for them beside this
// program, and nothing tells of their end.
const diskTimeout = 20 * time.Second

// awaitDisk returns the block device of a disk. luns are the serials of disks that the host
// knows by their LUN; such a disk may take a moment to appear.
func awaitDisk(serial string, luns []string) (string, error) {
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		device, err := findDisk("/sys", serial, luns)
		if err == nil || !slices.Contains(luns, serial) || time.Since(begin) > diskTimeout {
			return device, err
		}
	}
}

// findDisk returns the block device with a serial number, or that of its LUN.
func findDisk(sys, serial string, luns []string) (string, error) {
	if lun := slices.Index(luns, serial); lun >= 0 {
		found, err := filepath.Glob(fmt.Sprintf("%s/class/scsi_disk/*:*:*:%d/device/block/*", sys, lun))
		if err != nil {
			return "", err
		}
		if len(found) == 1 {
			return "/dev/" + filepath.Base(found[0]), nil
		}
		return "", fmt.Errorf("%d disks have the LUN %d, which is %s", len(found), lun, serial)
	}
	disks, err := filepath.Glob(sys + "/block/*/serial")
	if err != nil {
		return "", err
	}
	for _, p := range disks {
		if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == serial {
			return "/dev/" + filepath.Base(filepath.Dir(p)), nil
		}
	}
	return "", fmt.Errorf("no disk has the serial %s", serial)
}

// isEmpty reports whether a data disk was never used. Content other than btrfs is an error:
// the disk is not overwritten.
func isEmpty(device string) (bool, error) {
	f, err := os.Open(device)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 128<<10)
	if _, err := f.ReadAt(head, 0); err != nil {
		return false, fmt.Errorf("read %s: %w", device, err)
	}
	const magicAt, magic = 0x10040, "_BHRfS_M" // in the first superblock
	if string(head[magicAt:magicAt+len(magic)]) == magic {
		return false, nil
	}
	if bytes.Count(head, []byte{0}) == len(head) {
		return true, nil
	}
	return false, errors.New("the data disk holds something that is no btrfs; it is left as it is")
}

// makeData creates the data disk's file system. It keeps one copy of the metadata: two copies
// would be in the same file of the host.
func makeData(device string) error {
	out, err := exec.Command("/sbin/mkfs.btrfs", "--quiet", "--nodiscard", "--label", "lsub", "--metadata", "single", "--data", "single", device).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.btrfs: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// unmountData flushes and unmounts the data disk. Distros are stopped already. If the mount
// is busy anyway, it is made read-only, which flushes too.
func unmountData(log *slog.Logger) {
	// With all mounts of distros in it, which may use the data disk.
	if err := unix.Unmount(sharedDir, unix.MNT_DETACH); err != nil {
		log.Warn("unmount the shared folder", "err", err)
	}
	if err := unix.Unmount(dataDir, 0); err != nil {
		log.Warn("unmount the data disk", "err", err)
		if err := unix.Mount("", dataDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			log.Error("make the data disk read-only", "err", err)
		}
	}
}
