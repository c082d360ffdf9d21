package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// distroInitArg is the argument with which the agent runs its own program as a
// distro's PID 1.
const distroInitArg = "distro-init"

// sigPowerOff asks systemd to power off: SIGRTMIN+4.
const sigPowerOff = unix.Signal(34 + 4)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// initConfig is what a distro's PID 1 is told, as JSON on descriptor 3.
type initConfig struct {
	Device    string // block device of the data disk
	Subvolume string // the distro's, from the top of the disk
	Hostname  string
	Modules   string // folder to show as /lib/modules; "" for none
	Console   string // path of the terminal to show as /dev/console
	DNS       string // name server; "" for none
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
//  4. host name, name server, and the units that lsub lays over systemd's
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
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	writeNetworkFiles(cfg)
	if err := openStdio(); err != nil {
		return err
	}
	if init, err := filepath.EvalSymlinks("/sbin/init"); err == nil && filepath.Base(init) == "systemd" {
		if err := writeUnits(); err != nil {
			return err
		}
		fmt.Fprintln(status, initSystemd)
		// The agent takes the name as said only when exec has closed the socket.
		return fmt.Errorf("run %s: %w", init, unix.Exec("/sbin/init", []string{"/sbin/init"}, os.Environ()))
	}
	fmt.Fprintln(status, initTiny)
	status.Close()
	tinyInit()
	return nil
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

// enterRoot mounts the distro and makes it the root of this mount namespace.
func enterRoot(cfg initConfig) error {
	const at = "/mnt"
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
	if err := unix.Mount(cfg.Device, at, "btrfs", unix.MS_NOATIME, "subvol="+cfg.Subvolume); err != nil {
		return fmt.Errorf("mount %s: %w", cfg.Subvolume, err)
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
	return moveTree(console, "/dev/console")
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

// resolvHeader marks a resolv.conf as ours.
const resolvHeader = "# Written by lsub when the distro starts. Take this line out to keep your own.\n"

// writeNetworkFiles writes /etc/hostname, /etc/hosts and /etc/resolv.conf. A distro whose
// root cannot be written still starts.
func writeNetworkFiles(cfg initConfig) {
	if b, err := os.ReadFile("/etc/hostname"); err != nil || strings.TrimSpace(string(b)) != cfg.Hostname {
		os.WriteFile("/etc/hostname", []byte(cfg.Hostname+"\n"), 0o644)
	}
	if b, err := os.ReadFile("/etc/hosts"); err != nil || !hostsKnow(string(b), cfg.Hostname) {
		text := string(b)
		if text == "" {
			text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
		}
		os.WriteFile("/etc/hosts", []byte(strings.TrimRight(text, "\n")+"\n127.0.1.1\t"+cfg.Hostname+"\n"), 0o644)
	}
	if cfg.DNS == "" {
		return
	}
	const resolv = "/etc/resolv.conf"
	b, err := os.ReadFile(resolv) // a dangling link reads as none
	want := resolvHeader + "nameserver " + cfg.DNS + "\n"
	if string(b) == want || err == nil && len(b) > 0 && !strings.HasPrefix(string(b), resolvHeader) {
		return
	}
	os.Remove(resolv)
	os.WriteFile(resolv, []byte(want), 0o644)
}

// hostsKnow tells whether a hosts file names the host.
func hostsKnow(hosts, name string) bool {
	for line := range strings.Lines(hosts) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 {
			for _, n := range f[1:] {
				if n == name {
					return true
				}
			}
		}
	}
	return false
}

// maskedUnits are for what a distro does not have to itself: the machine's
// screens, clock, devices and kernel modules, and a root to be mounted anew.
var maskedUnits = []string{
	"getty@.service", "autovt@.service", "serial-getty@.service", "console-getty.service", "container-getty@.service",
	"systemd-vconsole-setup.service", "systemd-firstboot.service",
	"systemd-timesyncd.service",
	"systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udev-settle.service",
	"systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service", "kmod-static-nodes.service",
	"systemd-modules-load.service", "modprobe@.service",
	"systemd-remount-fs.service",
	"systemd-network-generator.service", "systemd-networkd-wait-online.service",
}

// writeUnits lays units over the distro's, in /run: they go with the distro's
// run, and /etc still overrides them.
func writeUnits() error {
	const dir = "/run/systemd/system"
	wants := filepath.Join(dir, "basic.target.wants")
	for _, d := range []string{wants, readyDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, u := range maskedUnits {
		if err := os.Symlink("/dev/null", filepath.Join(dir, u)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for name, text := range map[string]string{"lsub-ready.socket": readySocket, "lsub-ready.service": readyService} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.Symlink("../lsub-ready.socket", filepath.Join(wants, "lsub-ready.socket"))
}

// tinyInit is the PID 1 of a distro without systemd: it reaps the processes
// that lost their parent, and passes signals on to all. It ends when it is
// killed, and its namespaces with it.
func tinyInit() {
	os.WriteFile("/proc/self/comm", []byte("lsub-init"), 0)
	os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) // without it, the distro would be gone
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	for s := range sigs {
		if s != unix.SIGCHLD {
			unix.Kill(-1, s.(unix.Signal)) // all but ourselves
			continue
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && err != unix.EINTR {
				break
			}
		}
	}
}
