package agent

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/binfmt"
)

// runnable returns the processors whose programs run in all distros, as GOARCH.
func runnable() []string {
	const dir = "/proc/sys/fs/binfmt_misc" // the module brings it along; distros mount it too
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
		unix.Mount("binfmt_misc", dir, "binfmt_misc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") // else the list is empty
	}
	return binfmt.Arches(dir)
}
