package distroinit

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/wslconf"
)

// readySocket is there when the file systems, temporary files and D-Bus are:
// what a command may count on. It is early, so that a slow service does not
// keep commands waiting. A socket is made and removed by systemd itself: a service
// would be another process to wait for.
const readySocket = `[Unit]
Description=Let lsub commands enter
DefaultDependencies=no
IgnoreOnIsolate=yes
After=sysinit.target dbus.socket
Conflicts=shutdown.target
Before=shutdown.target
[Socket]
ListenFIFO=` + ReadyDir + "/" + ReadyFile + `
SocketMode=0600
RemoveOnStop=yes
`

// readyService is what systemd wants a socket to have. Nothing starts it.
const readyService = `[Unit]
Description=Nothing, for lsub-ready.socket
[Service]
Type=oneshot
ExecStart=/bin/true
`

// commandFile holds [boot] command of the distro's settings.
const commandFile = ReadyDir + "/boot-command"

// commandUnit runs it when the distro is up, and keeps what it leaves in the
// background. Nothing waits for it; what it says goes to the journal.
const commandUnit = `[Unit]
Description=[boot] command of /etc/wsl.conf or /etc/lsub.conf
After=network.target
[Service]
Type=simple
RemainAfterExit=yes
Environment=HOME=/root
WorkingDirectory=/
ExecStart=/bin/sh ` + commandFile + "\n"

// keepMounts is for the directory that all distros have in common: a distro that
// shuts down does not unmount for the others what is mounted there.
const keepMounts = "[Unit]\nDefaultDependencies=no\n"

// keepFormats is for the service that would remove the binary formats of all
// distros when one shuts down.
const keepFormats = "[Service]\nExecStop=\n"

// sessionUnit is a login session of a user, by uid: with it, logind knows who
// works in the distro (loginctl, polkit). Commands do not belong to it, as they do
// not pass through PAM; it lasts as long as the distro. Where PAM does not have
// it, there is none, and nothing failed.
const sessionUnit = `[Unit]
Description=Login session of lsub, user %i
Wants=user@%i.service
After=user@%i.service
ConditionPathExists=|/etc/pam.d/runuser-l
ConditionPathExists=|/usr/lib/pam.d/runuser-l
[Service]
User=%i
PAMName=runuser-l
Environment=` + cgroup.SessionMark + ` XDG_SESSION_CLASS=user
ExecStart=-/bin/sleep infinity
`

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
	"proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount", // mounted already
	"systemd-network-generator.service", "systemd-networkd-wait-online.service",
	"e2scrub_reap.service", "e2scrub_all.timer", // of ext4 on LVM
}

// maskedGenerators would be a process each, before anything else starts: for
// what the kernel's command line or the disk's partitions say, which are the
// VM's, for devices that udev would bring, and for what is masked above.
var maskedGenerators = []string{
	"bless-boot", "cryptsetup", "debug", "factory-reset", "getty", "gpt-auto", "hibernate-resume", "import",
	"integritysetup", "run", "ssh", "system-update", "tpm2", "veritysetup",
}

// flushedFile tells the journal that it may write to /var from the beginning.
// Elsewhere it waits for systemd-journal-flush.service, which waits for /var
// to be mounted.
const flushedFile = "/run/systemd/journal/flushed"

// writeUnits lays units over the distro's, in /run: they go with the distro's
// run, and /etc still overrides them.
// cfg has the environment of all services, and the network.
func writeUnits(settings wslconf.Settings, cfg Config) error {
	files := map[string]string{
		"lsub-ready.socket":           readySocket,
		"lsub-ready.service":          readyService,
		"lsub-session@.service":       sessionUnit,
		"mnt-lsub.mount.d/lsub.conf":  keepMounts,
		"mnt-lsub-.mount.d/lsub.conf": keepMounts, // all below it
	}
	links := map[string]string{"basic.target.wants/lsub-ready.socket": "../lsub-ready.socket"}
	for _, u := range maskedUnits {
		links[u] = "/dev/null"
	}
	for _, g := range maskedGenerators {
		links["../system-generators/systemd-"+g+"-generator"] = "/dev/null"
	}
	fstab, _ := distrofile.Read("/etc/fstab")
	if !mountsBelow(string(fstab), "/var") {
		files[flushedFile] = ""
		links["systemd-journal-flush.service"] = "/dev/null"
	}
	if len(cfg.Env) > 0 {
		files["/run/systemd/system.conf.d/lsub.conf"] = "[Manager]\nDefaultEnvironment=" + quoteEnv(cfg.Env) + "\n"
	}
	maps.Copy(files, networkFiles(settings, cfg))
	if settings.ProtectBinfmt {
		files["systemd-binfmt.service.d/lsub.conf"] = keepFormats
	}
	if !settings.MountFSTab {
		links["../system-generators/systemd-fstab-generator"] = "/dev/null"
	}
	if settings.Command != "" {
		files["lsub-boot-command.service"] = commandUnit
		links["multi-user.target.wants/lsub-boot-command.service"] = "../lsub-boot-command.service"
		files[commandFile] = settings.Command + "\n"
	}
	return layUnits("/run/systemd/system", files, links)
}

// networkFiles keep programs that manage networks from eth0, which the VM has set up and all
// distros share, and tell systemd-resolved and resolvconf the name server. They are there before such a
// program is installed.
func networkFiles(settings wslconf.Settings, cfg Config) map[string]string {
	const mark = "# Written by lsub when the distro starts. The VM manages eth0.\n"
	files := map[string]string{
		"/run/systemd/network/00-lsub.network":               mark + "[Match]\nName=eth0\n\n[Link]\nUnmanaged=yes\n",
		"/run/systemd/system/connman.service.d/00-lsub.conf": mark + "[Service]\nExecStart=\nExecStart=connmand --nodaemon --nodevice=eth0 --nodnsproxy\n",
		"/run/tmpfiles.d/connman_resolvconf.conf":            mark, // connman's would replace /etc/resolv.conf
		"/run/NetworkManager/conf.d/00-lsub.conf":            mark + "[keyfile]\nunmanaged-devices=interface-name:eth0\n\n[main]\nrc-manager=unmanaged\n",
	}
	if settings.WriteResolv && cfg.DNS != "" {
		files["/run/resolvconf/interface/eth0.lsub"] = resolvConf(cfg.DNS, cfg.Search)
		files["/run/systemd/resolved.conf.d/00-lsub.conf"] = mark + "[Resolve]\nDNS=" + cfg.DNS + "\nDomains=" + strings.Join(cfg.Search, " ") + "\n"
	}
	return files
}

// quoteEnv writes NAME=value pairs as systemd reads them in its files.
func quoteEnv(env []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`)
	words := make([]string, len(env))
	for i, e := range env {
		words[i] = `"` + escape.Replace(e) + `"`
	}
	return strings.Join(words, " ")
}

// mountsBelow tells whether an fstab has a mount at the directory or below it.
func mountsBelow(fstab, dir string) bool {
	for line := range strings.Lines(fstab) {
		f := strings.Fields(line)
		if len(f) > 1 && f[0][0] != '#' && (f[1] == dir || strings.HasPrefix(f[1], dir+"/")) {
			return true
		}
	}
	return false
}

// tmpOptions are how systemd's own tmp.mount mounts /tmp; mountTmp does the same.
const tmpOptions = "\nOptions=mode=1777,strictatime,nosuid,nodev,size=50%%,nr_inodes=1m\n"

// mountTmp mounts /tmp where systemd would (by default from Debian 13 on): it
// would take a process, for which others wait.
func mountTmp() {
	const etc, lib = "/etc/systemd/system/", "/usr/lib/systemd/system/"
	if !distrofile.Exists(lib+"local-fs.target.wants/tmp.mount") || distrofile.Exists(etc+"tmp.mount") || distrofile.Exists(etc+"tmp.mount.d") {
		return // it is not wanted, or wanted in another way
	}
	if fstab, _ := distrofile.Read("/etc/fstab"); mountsBelow(string(fstab), "/tmp") {
		return
	}
	if unit, _ := distrofile.Read(lib + "tmp.mount"); !strings.Contains(string(unit), tmpOptions) {
		return
	}
	if info, err := os.Lstat("/tmp"); err != nil || !info.IsDir() {
		return
	}
	// What fails, systemd tries again.
	unix.Mount("tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_STRICTATIME, "mode=1777,size=50%,nr_inodes=1m")
}

// layUnits writes files and symbolic links, whose names are absolute or below
// dir.
func layUnits(dir string, files, links map[string]string) error {
	place := func(name string) (string, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, os.MkdirAll(filepath.Dir(name), 0o755)
	}
	if err := os.MkdirAll(ReadyDir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		at, err := place(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for name, to := range links {
		at, err := place(name)
		if err != nil {
			return err
		}
		if err := os.Symlink(to, at); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
