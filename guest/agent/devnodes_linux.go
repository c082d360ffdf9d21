package agent

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

// restoreDevices makes the devices anew that no program does without, where they
// are gone: /dev is the same for all distros, and root in one can remove them.
func restoreDevices() error {
	for _, dev := range []struct {
		path         string
		major, minor uint32
	}{
		{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
	} {
		if distrofile.Exists(dev.path) {
			continue
		}
		if err := unix.Mknod(dev.path, unix.S_IFCHR|0o666, int(unix.Mkdev(dev.major, dev.minor))); err != nil {
			return fmt.Errorf("make %s: %w", dev.path, err)
		}
		if err := unix.Chmod(dev.path, 0o666); err != nil {
			return fmt.Errorf("make %s: %w", dev.path, err)
		}
	}
	return nil
}
