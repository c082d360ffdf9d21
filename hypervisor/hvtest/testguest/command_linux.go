package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func command(line string) (string, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", fmt.Errorf("no command")
	}
	switch arg := words[1:]; words[0] {
	case "panic":
		return "", os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "disks":
		return disks()
	case "write":
		if len(arg) != 2 {
			return "", fmt.Errorf("write wants a serial and a number of MiB")
		}
		return "", write(arg[0], arg[1])
	case "discard":
		if len(arg) != 1 {
			return "", fmt.Errorf("discard wants a serial")
		}
		return "", discard(arg[0])
	case "nic":
		return nic()
	case "up":
		if len(arg) != 1 {
			return "", fmt.Errorf("up wants an address")
		}
		return "", up(arg[0])
	case "udpecho":
		if len(arg) != 1 {
			return "", fmt.Errorf("udpecho wants a port")
		}
		return "", udpEcho(arg[0])
	case "boot":
		return read("/proc/sys/kernel/random/boot_id")
	case "frames":
		return "", frames()
	case "balloon":
		if len(arg) != 1 {
			return "", fmt.Errorf("balloon wants a number of bytes")
		}
		return "", balloon(arg[0])
	case "read":
		if len(arg) != 2 {
			return "", fmt.Errorf("read wants a share's tag and a file")
		}
		return readShare(arg[0], arg[1])
	case "cmdline":
		return read("/proc/cmdline")
	}
	return "", fmt.Errorf("unknown command %q", line)
}

func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// found is a disk: its serial and its directory in /sys/block.
type found struct{ serial, dir string }

// find returns the disks, by their serials, or by their LUNs where the host says which they are
// (hypervisor.DisksArg). Those may take a moment to appear.
func find() ([]found, error) {
	cmdline, err := read("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	var list []found
	for _, arg := range strings.Fields(cmdline) {
		serials, ok := strings.CutPrefix(arg, "lsub.disks=")
		if !ok {
			continue
		}
		for lun, serial := range strings.Split(serials, ",") {
			dir, err := awaitLUN(lun)
			if err != nil {
				return nil, err
			}
			list = append(list, found{serial, dir})
		}
		return list, nil
	}
	dirs, err := filepath.Glob("/sys/block/vd*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		serial, err := read(dir + "/serial")
		if err != nil {
			return nil, err
		}
		list = append(list, found{serial, dir})
	}
	return list, nil
}

// awaitLUN waits for a LUN for as long as lsub's guest does.
func awaitLUN(lun int) (dir string, err error) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		dirs, err := filepath.Glob(fmt.Sprintf("/sys/class/scsi_disk/*:*:*:%d/device/block/*", lun))
		if err != nil {
			return "", err
		}
		if len(dirs) == 1 {
			return "/sys/block/" + filepath.Base(dirs[0]), nil
		}
	}
	return "", fmt.Errorf("no disk has the LUN %d", lun)
}

func disks() (string, error) {
	list, err := find()
	if err != nil {
		return "", err
	}
	var out []string
	for _, d := range list {
		size, err := read(d.dir + "/size")
		if err != nil {
			return "", err
		}
		sectors, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return "", err
		}
		mode := "rw"
		if ro, err := read(d.dir + "/ro"); err != nil {
			return "", err
		} else if ro == "1" {
			mode = "ro"
		}
		out = append(out, fmt.Sprintf("%s:%d:%s", d.serial, sectors*512, mode))
	}
	return strings.Join(out, " "), nil
}

// device returns the device file of a disk.
func device(serial string) (string, error) {
	list, err := find()
	if err != nil {
		return "", err
	}
	for _, d := range list {
		if d.serial == serial {
			return "/dev/" + filepath.Base(d.dir), nil
		}
	}
	return "", fmt.Errorf("no disk has the serial %q", serial)
}

func write(serial, mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	dev, err := device(serial)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(dev, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// O_DIRECT wants memory on a page boundary, which a mapping has.
	block, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(block)
	if _, err := rand.Read(block); err != nil {
		return err
	}
	for range n {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}

func discard(serial string) error {
	dev, err := device(serial)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	span := [2]uint64{0, uint64(size)}
	// BLKDISCARD (_IO(0x12, 119)) reads two uint64 at its argument, which lives
	// on this stack frame for the whole call.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x1277, uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return errno
	}
	return nil
}

// balloon waits until the balloon holds size bytes.
func balloon(size string) error {
	want, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	for {
		held, err := ballooned()
		if err != nil {
			return err
		}
		if held >= want {
			return nil
		}
		// Nothing tells of it.
		time.Sleep(20 * time.Millisecond)
	}
}

// ballooned returns how many bytes the balloon has taken so far, less those that it has
// given back.
func ballooned() (int64, error) {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0, err
	}
	var pages int64
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case key == "balloon_inflate":
			pages += n
		case key == "balloon_deflate":
			pages -= n
		}
	}
	return pages * int64(os.Getpagesize()), nil
}

// readShare mounts a share at its tag's directory, unless it is there already.
func readShare(tag, name string) (string, error) {
	dir := "/shares/" + tag
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount(tag, dir, "virtiofs", 0, ""); err != nil && err != unix.EBUSY {
		return "", fmt.Errorf("mount the share %s: %w", tag, err)
	}
	return read(filepath.Join(dir, name))
}
