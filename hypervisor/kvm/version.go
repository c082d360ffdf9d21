package kvm

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/lsub/lsub/hint"
)

// version is a release of QEMU.
type version struct{ major, minor, micro int }

// minVersion is the first QEMU with -netdev stream.
var minVersion = version{7, 2, 0}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.micro) }

// describe returns a VM's description for people.
func describe(qemu version, accel Accel) string {
	if accel == AccelKVM {
		return fmt.Sprintf("QEMU %v with KVM", qemu)
	}
	return fmt.Sprintf("QEMU %v, software emulation", qemu)
}

func (v version) less(w version) bool {
	if v.major != w.major {
		return v.major < w.major
	}
	if v.minor != w.minor {
		return v.minor < w.minor
	}
	return v.micro < w.micro
}

// check returns an error if v is too old.
func (v version) check(program, pkg string) error {
	if !v.less(minVersion) {
		return nil
	}
	err := fmt.Errorf("%s is version %v; lsub needs %d.%d or newer", program, v, minVersion.major, minVersion.minor)
	return hint.New(err, "upgrade the package "+pkg+", for instance from your distribution's backports")
}

var versionLine = regexp.MustCompile(`(?m)^QEMU emulator version (\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?`)

// parseVersion reads the output of qemu -version.
func parseVersion(out string) (version, error) {
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		return version{}, fmt.Errorf("no version of QEMU in %.200q", out)
	}
	var n [3]int
	for i, s := range m[1:] {
		if s == "" {
			continue
		}
		v, err := strconv.Atoi(s)
		if err != nil {
			return version{}, fmt.Errorf("version of QEMU: %w", err)
		}
		n[i] = v
	}
	return version{n[0], n[1], n[2]}, nil
}
