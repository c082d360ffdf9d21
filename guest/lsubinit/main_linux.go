// Lsubinit is PID 1 of the utility VM: it mounts file systems, loads the kernel's modules,
// and serves the guest protocol (package guest/agent) until the power-off. The agent also
// runs it as the PID 1 of distros.
//
// It is the /init of the initramfs that lsub boots. It never returns: a PID 1 that returned
// would be a kernel panic, which ends the VM without flushing its disk.
package main

import (
	"log/slog"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distroinit"
)

func init() {
	// main stays on the first thread: as a distro's PID 1 it changes its namespaces, and
	// others see the first thread's in /proc/1.
	runtime.LockOSThread()
}

func main() {
	if distroinit.IsInit() {
		distroinit.Main()
		os.Exit(1)
	}
	if os.Getpid() != 1 {
		os.Stderr.WriteString("lsubinit is the init of lsub's VM and runs nowhere else\n")
		os.Exit(1)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // the console's lines have the kernel's time
			}
			return a
		},
	}))
	if err := boot(log); err != nil {
		log.Error("boot", "err", err)
	}
	powerOff()
}

// powerOff ends the VM.
func powerOff() {
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the power goes off at any moment
}
