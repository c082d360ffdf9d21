package account

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

// Limit is a resource limit that a distro's files set for a user, as PAM's login does.
type Limit struct {
	Resource   int     // RLIMIT_…
	Soft, Hard *uint64 // nil where the files say nothing
}

// Over returns now with what the limit sets.
func (l Limit) Over(now unix.Rlimit) unix.Rlimit {
	if l.Hard != nil {
		now.Max = *l.Hard
	}
	if l.Soft != nil {
		now.Cur = *l.Soft
	}
	now.Cur = min(now.Cur, now.Max)
	return now
}

// limitItems are the items of limits.conf(5) that are resource limits of a process, and the
// unit of their values.
var limitItems = map[string]struct {
	resource int
	unit     uint64
}{
	"as": {unix.RLIMIT_AS, 1 << 10}, "core": {unix.RLIMIT_CORE, 1 << 10}, "cpu": {unix.RLIMIT_CPU, 60}, "data": {unix.RLIMIT_DATA, 1 << 10},
	"fsize": {unix.RLIMIT_FSIZE, 1 << 10}, "memlock": {unix.RLIMIT_MEMLOCK, 1 << 10}, "msgqueue": {unix.RLIMIT_MSGQUEUE, 1},
	"nofile": {unix.RLIMIT_NOFILE, 1}, "nproc": {unix.RLIMIT_NPROC, 1}, "rss": {unix.RLIMIT_RSS, 1 << 10},
	"rtprio": {unix.RLIMIT_RTPRIO, 1}, "sigpending": {unix.RLIMIT_SIGPENDING, 1}, "stack": {unix.RLIMIT_STACK, 1 << 10},
}

// limitFiles lists the files of limits in the order in which PAM reads them. The calling
// thread's root directory is the distro's.
func limitFiles() []string {
	const dir = "/etc/security/limits.d"
	files := []string{"/etc/security/limits.conf"}
	for _, name := range distrofile.Names(dir) {
		if strings.HasSuffix(name, ".conf") {
			files = append(files, path.Join(dir, name))
		}
	}
	return files
}

// parseLimits returns the limits of a user in the texts of limits.conf and of the files of
// limits.d. A line for the user counts before one for a group, and that before one for all;
// of the same kind, the last counts. Root has only lines of its own. A line that makes no
// sense is skipped.
func parseLimits(texts [][]byte, who *Account, group []byte) []Limit {
	type key struct {
		item string
		hard bool
	}
	type value struct {
		rank  int
		limit uint64
	}
	set := map[key]value{}
	groups := parseTable("", group)
	for _, text := range texts {
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			if len(f) != 4 {
				continue
			}
			rank := limitRank(f[0], who, groups)
			item, ok := limitItems[f[2]]
			if rank == 0 || !ok {
				continue
			}
			limit, err := limitValue(f[3], item.unit)
			if err != nil {
				continue
			}
			for _, hard := range []bool{false, true} {
				if f[1] != "-" && (f[1] == "hard") != hard {
					continue
				}
				if k := (key{f[2], hard}); rank >= set[k].rank {
					set[k] = value{rank, limit}
				}
			}
		}
	}
	var limits []Limit
	for item, known := range limitItems {
		l := Limit{Resource: known.resource}
		if v, ok := set[key{item, false}]; ok {
			l.Soft = &v.limit
		}
		if v, ok := set[key{item, true}]; ok {
			l.Hard = &v.limit
		}
		if l.Soft != nil || l.Hard != nil {
			limits = append(limits, l)
		}
	}
	return limits
}

// limitRank says how much a line for a domain counts for a user; 0 is not at all.
func limitRank(domain string, who *Account, groups *table) int {
	switch name, isGroup := strings.CutPrefix(domain, "@"); {
	case isGroup:
		row := groups.find(0, name)
		if len(row) < 3 || who.UID == 0 {
			return 0
		}
		gid, err := strconv.ParseUint(row[2], 10, 32)
		if err == nil && (uint32(gid) == who.GID || slices.Contains(who.Groups, uint32(gid))) {
			return 2
		}
	case domain == who.Name:
		return 3
	case domain == "*" && who.UID != 0:
		return 1
	}
	return 0
}

func limitValue(text string, unit uint64) (uint64, error) {
	switch text {
	case "unlimited", "infinity", "-1":
		return unix.RLIM_INFINITY, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if n > unix.RLIM_INFINITY/unit {
		return unix.RLIM_INFINITY, err
	}
	return n * unit, err
}
