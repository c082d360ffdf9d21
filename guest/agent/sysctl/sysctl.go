// Package sysctl reads which kernel settings a distro makes at its start, as
// systemd-sysctl does from sysctl.d(5), and tells which of them all distros share: the VM
// has one kernel, so the distro that starts last decides for all.
//
//	files := sysctl.Files(list)                  // which files, in which order
//	wanted := sysctl.Parse(texts)                // "vm.max_map_count": "262144"
//	shared := sysctl.Shared("vm.max_map_count", false)
//
// The package is pure; its caller reads the files.
package sysctl

import (
	"path"
	"slices"
	"strings"
)

// Dirs are the directories of sysctl.d(5). Of two files with the same name, the one in the
// directory named first counts.
var Dirs = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"}

// Files returns the files that count, in the order in which they are read, by what list says
// is in each of the [Dirs].
func Files(list func(dir string) []string) []string {
	from := map[string]string{}
	for _, dir := range Dirs {
		for _, name := range list(dir) {
			if _, ok := from[name]; !ok && strings.HasSuffix(name, ".conf") {
				from[name] = path.Join(dir, name)
			}
		}
	}
	names := make([]string, 0, len(from))
	for name := range from {
		names = append(names, name)
	}
	slices.Sort(names)
	files := make([]string, len(names))
	for i, name := range names {
		files[i] = from[name]
	}
	return files
}

// maxSettings bounds what is kept of a distro's files.
const maxSettings = 2000

// Parse returns the settings of the texts of sysctl.d files, by their names with dots, as in
// "net.ipv4.ip_forward". The last one counts. A name with wildcards stands for many settings
// and is left out, as is a line that makes no sense.
func Parse(texts [][]byte) map[string]string {
	settings := map[string]string{}
	for _, text := range texts {
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || line[0] == ';' {
				continue
			}
			name, value, ok := strings.Cut(strings.TrimPrefix(line, "-"), "=")
			name = dotted(strings.TrimSpace(name))
			if !ok || name == "" || strings.ContainsAny(name, "*?[ \t") {
				continue
			}
			if _, known := settings[name]; known || len(settings) < maxSettings {
				settings[name] = strings.Join(strings.Fields(value), " ")
			}
		}
	}
	return settings
}

// dotted returns a setting's name with dots between its parts. Where the first separator is
// a slash, the dots belong to the parts, as in "net/ipv4/conf/eth0.1/forwarding".
func dotted(name string) string {
	i := strings.IndexAny(name, "./")
	if i < 0 || name[i] == '.' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, name)
}

// own are the settings that each distro has for itself: those of the namespaces for IPC and
// for host names, see sysctl/kernel and ipc_namespaces(7) of Linux. A dot at the end means all
// below it.
var own = []string{
	"kernel.domainname", "kernel.hostname", "kernel.ns_last_pid",
	"fs.mqueue.", "kernel.auto_msgmni", "kernel.msg_next_id", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni",
	"kernel.sem", "kernel.sem_next_id", "kernel.shm_next_id", "kernel.shm_rmid_forced", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni",
}

// Shared tells whether distros share a setting. An isolated distro has the settings of its
// network for itself.
func Shared(name string, isolated bool) bool {
	if isolated && strings.HasPrefix(name, "net.") {
		return false
	}
	return !slices.ContainsFunc(own, func(o string) bool {
		return name == o || strings.HasSuffix(o, ".") && strings.HasPrefix(name, o)
	})
}
