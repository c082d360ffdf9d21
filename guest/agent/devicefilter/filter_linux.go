package devicefilter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// CloseDisks keeps the processes in a control group, and in those below it, from opening
// the disks that the VM has now, and from making device files for them. All other devices
// work as before: loop devices, FUSE, tun and those of modules. Programs that container
// engines and systemd attach to groups below apply too. The filter lasts as long as the
// group.
func CloseDisks(group string) error {
	rules := slices.Clone(always)
	for _, of := range []struct {
		kind int32
		glob string
	}{{block, "/sys/block/*"}, {char, "/sys/class/bsg/*"}} { // bsg as sg
		majors, err := hardware(of.glob)
		if err != nil {
			return err
		}
		for _, major := range majors {
			rules = append(rules, rule{of.kind, major, anyMinor})
		}
	}
	return attach(group, rules)
}

func attach(group string, rules []rule) error {
	dir, err := os.Open(group)
	if err != nil {
		return err
	}
	defer dir.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lsub_devices", Type: ebpf.CGroupDevice, AttachType: ebpf.AttachCGroupDevice, Instructions: deny(rules), License: "GPL",
	})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	defer p.Close() // the group holds it
	// Not by a link: root in a distro could get hold of one, and detach it. This takes the
	// group itself, which no distro can reach.
	if err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(dir.Fd()), Program: p, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI,
	}); err != nil {
		return fmt.Errorf("attach the program: %w", err)
	}
	return nil
}

// hardware returns the major numbers of a class of devices, without those that are
// no hardware, such as loop devices.
func hardware(glob string) ([]uint32, error) {
	list, err := filepath.Glob(glob)
	if err != nil {
		return nil, err
	}
	var majors []uint32
	for _, d := range list {
		at, err := filepath.EvalSymlinks(d)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(at, "/sys/devices/virtual/") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(at, "dev"))
		if err != nil {
			return nil, err
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("%s is the number %q: %w", d, b, err)
		}
		if !slices.Contains(majors, major) {
			majors = append(majors, major)
		}
	}
	return majors, nil
}
