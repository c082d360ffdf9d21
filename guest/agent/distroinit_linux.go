package agent

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

// distroInitArg is the argument with which the agent runs its own program as a
// distro's PID 1.
const distroInitArg = "distro-init"

// sigPowerOff asks systemd to power off: SIGRTMIN+4.
const sigPowerOff = unix.Signal(34 + 4)

// initConfig is what a distro's PID 1 is told, as JSON on descriptor 3.
type initConfig struct {
	Root     string // the distro's subvolume
	Hostname string
	Modules  string // directory to show as /lib/modules; "" for none
	Console  string // path of the terminal to show as /dev/console
	DNS      string // name server; "" for none
	Search   []string
	Timezone string   // of the host; "" where unknown
	Env      []string // of its services
	Shared   string   // directory to show as /mnt/lsub, in all distros the same; "" for none
}

// setUp is what a distro's PID 1 reports, as a line of JSON, when all is set
// up for its init.
type setUp struct {
	Init     string
	Warnings []string      // about the distro's own files
	Timeout  time.Duration // until commands may enter, ready or not; 0 for the default
}

// IsDistroInit tells whether the program was started to become the PID 1 of a
// distro.
func IsDistroInit() bool { return len(os.Args) == 2 && os.Args[1] == distroInitArg }

// DistroInit makes the calling process, PID 1 of new namespaces, the init of a
// distro. It must run on the process's first thread. Its steps:
//
//  1. a cgroup namespace, whose root is the distro's own group
//  2. the distro's subvolume becomes the root; nothing else stays reachable
//  3. /proc, /sys, /dev and the like
//  4. what the distro's own /etc/wsl.conf and /etc/lsub.conf ask for, such as
//     the host name, and the units that lsub lays over systemd's
//  5. the distro's systemd takes over; without one, our own tiny init stays
//
// It does not return but when it fails, and has reported that.
func DistroInit() error {
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
	var cfg initConfig
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
	shareBinaryFormats(settings.ProtectBinfmt)
	if err := openStdio(); err != nil {
		return err
	}
	report := setUp{Init: initTiny, Warnings: settings.Warnings, Timeout: settings.InitTimeout}
	if settings.Systemd && hasSystemd() {
		report.Init = initSystemd
		if err := writeUnits(settings.Settings, cfg.Env); err != nil {
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
	if err := os.MkdirAll(readyDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(readyDir+"/"+readyFile, nil, 0o644); err != nil {
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

func hasSystemd() bool {
	init, err := filepath.EvalSymlinks("/sbin/init")
	return err == nil && filepath.Base(init) == "systemd"
}

// mountPoint is a file system of a distro.
type mountPoint struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// distroMounts are made in this order, as systemd expects them of a container
// manager. /sys is read-only, so that a distro's udev leaves the shared
// devices alone. /dev is the kernel's, the same for all distros, but for the
// terminals.
var distroMounts = []mountPoint{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY, ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"tmpfs", "/run/lock", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777,size=5120k"},
}

// kernelMounts are made where the kernel has them. systemd would make them
// too, with a process each.
var kernelMounts = []mountPoint{
	{"hugetlbfs", "/dev/hugepages", "hugetlbfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
	{"debugfs", "/sys/kernel/debug", "debugfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tracefs", "/sys/kernel/tracing", "tracefs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"fusectl", "/sys/fs/fuse/connections", "fusectl", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=0700"},
}

// sharedDir is a tmpfs that all distros have in common.
const sharedDir = "/mnt/lsub"

// enterRoot mounts the distro and makes it the root of this mount namespace.
func enterRoot(cfg initConfig) error {
	const at = "/mnt"
	// Before mounts are made private: what is mounted in it shows in all distros.
	shared, err := openTree(cfg.Shared)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// What comes from the VM is taken by descriptor now and attached when the
	// distro is the root, so that no link of the distro's leads it astray.
	modules, err := openTree(cfg.Modules)
	if err != nil {
		return err
	}
	console, err := openTree(cfg.Console)
	if err != nil {
		return err
	}
	if err := mountRoot(cfg.Root, at); err != nil {
		return err
	}
	if err := unix.Chdir(at); err != nil {
		return err
	}
	// With both the same, the old root lies over the new and is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the VM's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	// What is mounted in the distro shows in the containers that share a folder
	// of it, as where systemd boots a machine. In a container it leaves that to us.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts with the distro's containers: %w", err)
	}
	for _, m := range distroMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, m := range kernelMounts {
		unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	}
	if modules >= 0 {
		if err := os.MkdirAll("/lib/modules", 0o755); err != nil {
			return err
		}
		if err := moveTree(modules, "/lib/modules"); err != nil {
			return err
		}
	}
	if shared >= 0 {
		if err := os.MkdirAll(sharedDir, 0o755); err != nil {
			return err
		}
		if err := moveTree(shared, sharedDir); err != nil {
			return err
		}
	}
	return moveTree(console, "/dev/console")
}

// mountRoot mounts a distro's subvolume. It is a further mount of the file system
// that the VM has mounted already, because the distro may not open the disk.
func mountRoot(subvolume, at string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, subvolume, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("take %s along: %w", subvolume, err)
	}
	// The VM itself has nothing to run on that disk, a distro has.
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return fmt.Errorf("mount %s: %w", subvolume, err)
	}
	return moveTree(fd, at)
}

// openTree returns a detached copy of the mounts at path, -1 for "".
func openTree(path string) (int, error) {
	if path == "" {
		return -1, nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("take %s along: %w", path, err)
	}
	return fd, nil
}

func moveTree(fd int, target string) error {
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
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

// binaryFormats is where the kernel lists the binary formats of binfmt_misc. They are
// the VM's: all distros have the same.
const binaryFormats = "/proc/sys/fs/binfmt_misc"

// shareBinaryFormats mounts the list. Where it is protected, nothing comes of
// what systemd does when a distro starts and stops: removing all formats,
// those of other distros among them. Single ones can be added and removed.
func shareBinaryFormats(protect bool) {
	// The module brings the folder along.
	fd, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return // a kernel without
	}
	unix.Close(fd)
	if err := unix.Mount("binfmt_misc", binaryFormats, "binfmt_misc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err == nil && protect {
		unix.Mount("/dev/null", binaryFormats+"/status", "", unix.MS_BIND, "")
	}
}
