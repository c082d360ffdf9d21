package distroinit

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

// initArg is the argument that tells the program to become a distro's PID 1.
const initArg = "distro-init"

// The distro's init makes the file ReadyFile in the distro's ReadyDir when commands may
// enter, and removes it when the distro shuts down.
const (
	ReadyDir  = "/run/lsub"
	ReadyFile = "ready"
)

// ToolsDir is where a distro sees the programs that lsub runs in distros.
const ToolsDir = ReadyDir + "/bin"

// The inits of a distro: its own systemd, or a small one of lsub's.
const (
	Systemd = "systemd"
	Tiny    = "tiny"
)

// SigPowerOff is the signal that asks systemd to power off: SIGRTMIN+4.
const SigPowerOff = unix.Signal(34 + 4)

// Config tells the new PID 1 what to set up. It gets it as JSON on descriptor 3.
type Config struct {
	Root     string // the distro's subvolume
	Hostname string
	Modules  string // directory to show as /lib/modules; "" for none
	Console  string // path of the terminal to show as /dev/console
	DNS      string // name server; "" for none
	Search   []string
	Timezone string   // of the host; "" where unknown
	Env      []string // of its services
	Shared   string   // directory to show as /mnt/lsub, in all distros the same; "" for none
	Host     string   // directory to show as /mnt/host; "" for none
	Tools    string   // directory to show as ToolsDir; "" for none
}

// Report is the answer of the new PID 1 when all is set up for its init: a line of JSON.
type Report struct {
	Init     string        // Systemd or Tiny
	Warnings []string      // about the distro's own files
	Timeout  time.Duration // until commands may enter, ready or not; 0 for the default
}

// IsInit tells whether [Start] started this process.
func IsInit() bool { return len(os.Args) == 2 && os.Args[1] == initArg }

// Main makes the calling process, which [Start] started, the init of a distro. It must run
// on the process's first thread. Its steps:
//
//  1. a cgroup namespace, whose root is the distro's own group
//  2. the distro's subvolume becomes the root; nothing else stays reachable
//  3. /proc, /sys, /dev and the like
//  4. what the distro's own /etc/wsl.conf and /etc/lsub.conf ask for, such as
//     the host name, and the units that lsub lays over systemd's
//  5. the distro's systemd takes over; without one, our own tiny init stays
//
// It returns only when it fails, after it has reported the error.
func Main() error {
	status := os.NewFile(3, "status")
	unix.CloseOnExec(3)
	err := becomeInit(status)
	fmt.Fprintf(status, "error: %v\n", err)
	return err
}

func becomeInit(status *os.File) error {
	line, err := bufio.NewReader(status).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
	var cfg Config
	if err := json.Unmarshal(line, &cfg); err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	if err := enterRoot(cfg); err != nil {
		return err
	}
	settings := distrofile.ReadSettings(distrofile.Read)
	hostname := cmp.Or(settings.Hostname, cfg.Hostname)
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	writeHostFiles(cfg, settings.Settings, hostname)
	if cfg.Tools != "" {
		linkTools()
	}
	shareBinaryFormats(settings.ProtectBinfmt)
	if err := openStdio(); err != nil {
		return err
	}
	report := Report{Init: Tiny, Warnings: settings.Warnings, Timeout: settings.InitTimeout}
	if settings.Systemd && hasSystemd() {
		report.Init = Systemd
		if err := writeUnits(settings.Settings, cfg); err != nil {
			return err
		}
		mountTmp()
		if err := json.NewEncoder(status).Encode(report); err != nil {
			return err
		}
		// The agent takes the report as true only when exec has closed the socket.
		return fmt.Errorf("run /sbin/init: %w", unix.Exec("/sbin/init", []string{"/sbin/init"}, os.Environ()))
	}
	if settings.MountFSTab {
		report.Warnings = append(report.Warnings, mountFSTab()...)
	}
	if err := os.MkdirAll(ReadyDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(ReadyDir+"/"+ReadyFile, nil, 0o644); err != nil {
		return err
	}
	if err := json.NewEncoder(status).Encode(report); err != nil {
		return err
	}
	status.Close()
	tinyInit(settings.Command, cfg.Env)
	os.Exit(0)
	return nil
}

// openStdio makes the console stdin, stdout and stderr.
func openStdio() error {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	for to := range 3 {
		if fd != to {
			if err := unix.Dup3(fd, to, 0); err != nil {
				return err
			}
		}
	}
	if fd > 2 {
		unix.Close(fd)
	}
	return nil
}
