package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// openDevices are the devices that any user may open. A VM that a user starts with
// /dev/vhost-vsock could connect to the VM's own vsock ports, so that one is root's.
var openDevices = []string{"/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/vhost-net"}

// makeDevices creates device nodes, in the devtmpfs that all distros share, for modules that
// are not loaded yet: opening one loads its module. Elsewhere systemd does this
// (kmod-static-nodes.service), but here the modules are the VM's.
func makeDevices(modules string) error {
	list, err := os.ReadFile(filepath.Join(modules, kernelRelease(), "modules.devname"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	nodes, err := parseDevices(string(list))
	if err != nil {
		return err
	}
	if cpuinfo, err := os.ReadFile("/proc/cpuinfo"); err == nil && canRunVMs(string(cpuinfo)) {
		// Not on other processors: programs take the device for the ability.
		nodes = append(nodes, deviceNode{"/dev/kvm", unix.S_IFCHR, unix.Mkdev(10, 232)})
	}
	for _, n := range nodes {
		if err := os.MkdirAll(filepath.Dir(n.path), 0o755); err != nil {
			return err
		}
		// An existing one belongs to a module that is loaded or built in.
		if err := unix.Mknod(n.path, n.mode|0o600, int(n.dev)); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make %s: %w", n.path, err)
		}
	}
	for _, path := range openDevices {
		if err := os.Chmod(path, 0o666); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// canRunVMs reports whether the first processor of /proc/cpuinfo can run VMs. Kernels for arm64
// have KVM built in, and make its device themselves.
func canRunVMs(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "flags" {
			flags := strings.Fields(value)
			return slices.Contains(flags, "vmx") || slices.Contains(flags, "svm")
		}
	}
	return false
}

// deviceNode has the arguments of mknod.
type deviceNode struct {
	path string
	mode uint32 // its type
	dev  uint64
}

// parseDevices parses modules.devname, which depmod writes: after a comment, each line has a
// module's name, a path below /dev, and "c" or "b" with major:minor.
func parseDevices(list string) ([]deviceNode, error) {
	var nodes []deviceNode
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var module, name string
		var kind rune
		var major, minor uint32
		n, _ := fmt.Sscanf(line, "%s %s %c%d:%d", &module, &name, &kind, &major, &minor)
		mode, ok := map[rune]uint32{'c': unix.S_IFCHR, 'b': unix.S_IFBLK}[kind]
		if n != 5 || !ok {
			return nil, fmt.Errorf("modules.devname: bad line %q", line)
		}
		nodes = append(nodes, deviceNode{filepath.Join("/dev", name), mode, unix.Mkdev(major, minor)})
	}
	return nodes, nil
}
