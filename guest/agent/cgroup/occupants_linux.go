package cgroup

import (
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest/agent/procfs"
)

// baseUnits are services that are there for others: an installed distro runs
// them by itself, and loses nothing when they stop with it. All else that runs
// is somebody's, and keeps the distro up. Patterns as path.Match has them.
var baseUnits = []string{
	// systemd's own, and logins
	"systemd-*.service", "lsub-*.service", "init.scope", "*.mount", "*.swap", "*.socket", "*getty@*.service", "console-getty.service", "user-runtime-dir@*.service",
	"dbus.service", "dbus-broker.service", "dbus-*.service", "polkit.service", "polkitd.service",
	// logs, clocks and housekeeping
	"rsyslog.service", "syslog.service", "syslog-ng.service", "auditd.service", "haveged.service", "rngd.service",
	"cron.service", "crond.service", "cronie.service", "atd.service", "anacron.service",
	"chrony.service", "chronyd.service", "ntp.service", "ntpd.service", "ntpsec.service", "openntpd.service",
	"unattended-upgrades.service", "packagekit.service", "fwupd.service", "irqbalance.service", "smartd.service",
	"snapd.service", "snapd.*.service", "ubuntu-advantage.service", "wsl-pro.service", "landscape-client.service",
	// devices, networks and desktops, of which a distro has none to itself
	"udev.service", "udisks2.service", "upower.service", "accounts-daemon.service", "power-profiles-daemon.service",
	"NetworkManager.service", "NetworkManager-dispatcher.service", "networkd-dispatcher.service", "networking.service",
	"ModemManager.service", "wpa_supplicant.service", "avahi-daemon.service", "bluetooth.service", "colord.service",
	"rtkit-daemon.service", "switcheroo-control.service", "sssd.service", "sssd-*.service", "nscd.service", "nslcd.service", "gssproxy.service",
	// what a user's own systemd runs
	"gpg-agent.service", "ssh-agent.service", "dirmngr.service", "keyboxd.service", "gcr-*.service", "gnome-keyring*.service",
	"pipewire*.service", "wireplumber.service", "pulseaudio.service", "filter-chain.service",
	"at-spi-dbus-bus.service", "dconf.service", "gvfs-*.service", "xdg-*.service", "obex.service",
}

// SessionMark is in the environment of the process that stands for the session of lsub's
// commands, as loginctl shows it.
const SessionMark = "LSUB_SESSION=1"

// Occupants yields what in the groups keeps the distro up, in words for people, each
// with its group: processes of users and services that are not base services. init is
// the distro's PID 1. Each further one takes a further look.
func (g *Group) Occupants(init int) iter.Seq2[string, string] {
	return func(yield func(group, what string) bool) {
		for _, group := range g.occupied() {
			for _, what := range g.occupantsOf(group, init) {
				if !yield(group, what) {
					return
				}
			}
		}
	}
}

func (g *Group) occupantsOf(group string, init int) (what []string) {
	switch unit := unitOf(group); {
	case group == SessionsGroup, group == ".":
		for _, pid := range g.processes(group) {
			if pid != init {
				what = append(what, "process "+procfs.Name(pid))
			}
		}
	case unit == "":
		what = append(what, "processes in "+group)
	case strings.HasPrefix(unit, "session-") && g.onlyOurs(group):
	case !isBase(unit):
		what = append(what, unitWords(unit))
	}
	return what
}

// onlyOurs tells whether a session has no process but the one that stands for
// lsub's commands, see sessionUnit, and systemd's that keeps it open.
func (g *Group) onlyOurs(group string) bool {
	for _, pid := range g.processes(group) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if procfs.Name(pid) == "(sd-pam)" {
			continue
		}
		if err == nil && !slices.Contains(strings.Split(string(env), "\x00"), SessionMark) {
			return false
		}
	}
	return true
}

// ListenerCounts tells whether a socket keeps the distro up on which a process of a group
// listens.
func ListenerCounts(group string) bool {
	unit := unitOf(group)
	// What systemd itself listens on starts a service when somebody comes.
	forService := unit == "init.scope" || path.Ext(unit) == ".socket"
	return forService || !isBase(unit)
}

// unitOf returns the systemd unit that a group of a distro belongs to, or "":
// the outermost one, or the outermost below a user's own systemd. What a
// service makes of groups below its own (a container engine's) is its affair.
func unitOf(group string) string {
	for part := range strings.SplitSeq(group, "/") {
		if strings.HasPrefix(part, "user@") {
			continue
		}
		switch path.Ext(part) {
		case ".service", ".scope", ".mount", ".swap", ".socket":
			return part
		}
	}
	return ""
}

func isBase(unit string) bool {
	return slices.ContainsFunc(baseUnits, func(pattern string) bool {
		ok, _ := path.Match(pattern, unit)
		return ok
	})
}

// unitWords names a unit as people would: "service nginx", "login session 3".
func unitWords(unit string) string {
	name, kind, _ := cutLast(unit, ".")
	switch id, isSession := strings.CutPrefix(name, "session-"); {
	case kind == "service":
		return "service " + name
	case isSession:
		return "login session " + id
	}
	for _, engine := range []string{"docker-", "libpod-", "cri-containerd-"} {
		if id, ok := strings.CutPrefix(name, engine); ok {
			return "container " + id[:min(len(id), 12)]
		}
	}
	return kind + " " + name
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// occupied lists the groups of a distro that have processes of their own,
// relative to the root that the distro sees.
func (g *Group) occupied() []string {
	var groups []string
	filepath.WalkDir(g.inside, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // it has gone meanwhile
		}
		events, err := os.ReadFile(filepath.Join(p, "cgroup.events"))
		if err != nil || strings.Contains(string(events), "populated 0") {
			return fs.SkipDir
		}
		rel, _ := filepath.Rel(g.inside, p)
		if len(g.processes(rel)) > 0 {
			groups = append(groups, rel)
		}
		return nil
	})
	return groups
}

// Processes returns all processes of the distro.
func (g *Group) Processes() (pids []int) {
	for _, group := range g.occupied() {
		pids = append(pids, g.processes(group)...)
	}
	return pids
}

// processes lists the processes of one group, but not of those below it.
func (g *Group) processes(group string) []int {
	b, err := os.ReadFile(filepath.Join(g.inside, group, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
