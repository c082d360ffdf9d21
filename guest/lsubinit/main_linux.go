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
	"syscall"

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
	raiseFileLimit()
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

// fileLimit is how many files a process may have at most, and may have unless it asks for
// more: as under systemd, whose commands and services get the same.
var fileLimit = syscall.Rlimit{Cur: 1024, Max: 512 << 10}

// raiseFileLimit has the agent and all processes of the distros have fileLimit; the kernel
// gives its first process 4096. Go takes all that it may for itself and gives its children
// what it found, so the program starts anew.
func raiseFileLimit() {
	var now syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now) != nil || now.Max >= fileLimit.Max {
		return
	}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &fileLimit) == nil {
		syscall.Exec(os.Args[0], os.Args, os.Environ()) // where it fails, more files are of use all the same
	}
}

// powerOff ends the VM.
func powerOff() {
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the power goes off at any moment
}
