package distroinit

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/wslconf"
)

// resolvHeader marks a resolv.conf as ours.
const resolvHeader = "# Written by lsub when the distro starts. Take this line out to keep your own.\n"

// writeHostFiles writes what a distro knows of where it runs: its name, the
// names of hosts, the name server and the time zone. A distro whose root
// cannot be written still starts.
func writeHostFiles(cfg Config, settings wslconf.Settings, hostname string) {
	if b, err := distrofile.Read("/etc/hostname"); err != nil || strings.TrimSpace(string(b)) != hostname {
		replaceRootFile("/etc/hostname", hostname+"\n")
	}
	if settings.WriteHosts {
		b, err := distrofile.Read("/etc/hosts") // long ones, which block advertisements, are left alone
		if text := hostsWith(string(b), hostname); text != string(b) && (err == nil || os.IsNotExist(err)) {
			replaceRootFile("/etc/hosts", text)
		}
	}
	if settings.WriteResolv && cfg.DNS != "" {
		const resolv = "/etc/resolv.conf"
		b, err := distrofile.Read(resolv) // a dangling link reads as none
		want := resolvConf(cfg.DNS, cfg.Search)
		if string(b) != want && (err != nil || len(b) == 0 || strings.HasPrefix(string(b), resolvHeader)) {
			replaceRootFile(resolv, want)
		}
	}
	if settings.FollowTimezone {
		followTimezone("/", cfg.Timezone)
	}
}

// resolvConf is a distro's resolv.conf.
func resolvConf(server string, search []string) string {
	text := resolvHeader
	if len(search) > 0 {
		text += "search " + strings.Join(search, " ") + "\n"
	}
	return text + "nameserver " + server + "\n"
}

// replaceRootFile puts a file in the place of whatever was there, where the
// distro is the root.
func replaceRootFile(name, text string) error {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer root.Close()
	return distrofile.Replace(root, filepath.Base(name), text)
}

// hostsMark ends the line of a hosts file that lsub writes.
const hostsMark = "\t# lsub"

// hostsWith is a hosts file in which the host is known by its name: where no
// other line names it, by one of ours, which takes the place of an earlier one.
func hostsWith(text, name string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(strings.TrimRight(line, "\r\n"), hostsMark) {
			b.WriteString(line)
		}
	}
	others := b.String()
	if hostsKnow(others, name) {
		return others
	}
	if others == "" {
		others = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	}
	return strings.TrimRight(others, "\n") + "\n127.0.1.1\t" + name + hostsMark + "\n"
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

// followTimezone makes a time zone the one of the distro below root, where it
// knows the zone.
func followTimezone(root, zone string) error {
	if !validZone(zone) {
		return fmt.Errorf("%q is no time zone", zone)
	}
	const zones = "/usr/share/zoneinfo"
	info, err := os.Stat(path.Join(root, zones, zone))
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no time zone", zone)
	}
	localtime, want := path.Join(root, "etc/localtime"), path.Join(zones, zone)
	if to, err := os.Readlink(localtime); err != nil || !path.IsAbs(to) && path.Join("/etc", to) != want || path.IsAbs(to) && to != want {
		tmp := localtime + ".lsub-new"
		os.Remove(tmp)
		if err := os.Symlink(want, tmp); err != nil {
			return err
		}
		if err := os.Rename(tmp, localtime); err != nil {
			return err
		}
	}
	// Debian's, which not every release has.
	name := path.Join(root, "etc/timezone")
	if b, err := distrofile.Read(name); err != nil || strings.TrimSpace(string(b)) == zone {
		return nil
	}
	return replaceRootFile(name, zone+"\n")
}

// validZone tells names of the time zone database from paths that lead elsewhere.
func validZone(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-") != "" || part == "" {
			return false
		}
	}
	return true
}
