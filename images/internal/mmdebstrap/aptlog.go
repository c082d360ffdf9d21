package mmdebstrap

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"

	"github.com/lsub/lsub/hint"
)

// aptLog parses the output of mmdebstrap, apt and dpkg, and reports progress. It is an
// io.Writer for one goroutine.
type aptLog struct {
	report func(Step)
	log    *slog.Logger
	part   []byte   // incomplete line
	last   []string // last lines, for an error
	errors []string // errors of apt and mmdebstrap

	group     string // the kind of packages in the current step
	total     int    // number of packages in the step
	fetched   int
	unpacked  int
	installed int // in this step
	before    int // installed by earlier steps
}

const keptLines = 12

var newlyInstalled = regexp.MustCompile(`^\d+ upgraded, (\d+) newly installed`)

func newAptLog(report func(Step), log *slog.Logger) *aptLog {
	return &aptLog{report: report, log: log, group: "essential packages"}
}

func (a *aptLog) Write(p []byte) (int, error) {
	a.part = append(a.part, p...)
	for {
		i := bytes.IndexAny(a.part, "\r\n")
		if i < 0 {
			break
		}
		a.line(strings.TrimSpace(string(a.part[:i])))
		a.part = a.part[i+1:]
	}
	if len(a.part) > 64<<10 {
		a.part = nil // no real line is that long
	}
	return len(p), nil
}

func (a *aptLog) line(s string) {
	if s == "" {
		return
	}
	a.log.Debug("mmdebstrap", "line", s)
	if a.last = append(a.last, s); len(a.last) > keptLines {
		a.last = a.last[1:]
	}
	switch {
	case strings.HasPrefix(s, "E: "), strings.HasPrefix(s, "dpkg: error"), strings.Contains(s, "No space left on device"):
		if len(a.errors) < keptLines {
			a.errors = append(a.errors, strings.TrimPrefix(s, "E: "))
		}
	case strings.HasPrefix(s, "I: installing remaining packages"):
		a.before += a.installed
		a.group, a.total, a.fetched, a.unpacked, a.installed = "packages", 0, 0, 0, 0
	case strings.HasPrefix(s, "I: creating tarball"):
		a.report(Step{Text: "packing", Bytes: true})
	case strings.HasPrefix(s, "Get:"), strings.HasPrefix(s, "Hit:"):
		a.fetched++
		a.count("downloading ", a.fetched)
	case strings.HasPrefix(s, "Unpacking "):
		a.unpacked++
		a.count("installing ", (a.unpacked+a.installed)/2)
	case strings.HasPrefix(s, "Setting up "):
		a.installed++
		a.count("installing ", (a.unpacked+a.installed)/2)
	default:
		if m := newlyInstalled.FindStringSubmatch(s); m != nil {
			a.total, _ = strconv.Atoi(m[1])
			a.fetched = 0 // earlier downloads were apt's lists
		}
	}
}

// count reports how many of the step's packages are done, once their total is known.
func (a *aptLog) count(verb string, done int) {
	if a.total > 0 {
		a.report(Step{Text: verb + a.group, Done: int64(min(done, a.total)), Total: int64(a.total)})
	}
}

// packages returns the total number of installed packages.
func (a *aptLog) packages() int { return a.before + a.installed }

// failure returns the error of a run of mmdebstrap that ended with err. It uses the messages
// of apt and mmdebstrap.
func (a *aptLog) failure(err error) error {
	if len(a.errors) == 0 {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	all := strings.Join(a.errors, "\n")
	switch {
	case strings.Contains(all, "No space left on device"), strings.Contains(all, "enough free space"):
		return hint.New(errors.New("no space left on the disk while building it"),
			"free some space, or let TMPDIR name a directory that has a gigabyte")
	case strings.Contains(all, "foreign architecture"), strings.Contains(all, "can neither be executed natively"):
		return hint.New(fmt.Errorf("programs of that architecture do not run on this machine: %s", a.errors[0]),
			"install what runs them, with 'sudo apt install qemu-user-static binfmt-support arch-test'")
	case strings.Contains(all, "Unable to locate package"), strings.Contains(all, "has no installation candidate"):
		return hint.New(errors.New(lowerFirst(strings.Join(a.missing(), ", "))),
			"look the name up with 'apt-cache search' in a distro of that suite; packages come from its section main")
	case strings.Contains(all, "Temporary failure resolving"), strings.Contains(all, "Could not connect"),
		strings.Contains(all, "Could not resolve"), strings.Contains(all, "Failed to fetch"):
		return hint.New(fmt.Errorf("the packages cannot be downloaded: %s", a.errors[0]),
			"check the network, and http_proxy where you need a proxy; what is in the cache already works without")
	case strings.Contains(all, "is expired"), strings.Contains(all, "is not valid yet"):
		return hint.New(fmt.Errorf("the package lists are not valid today: %s", a.errors[0]),
			"check this machine's clock; if it is right, the mirror is out of date: try again later, or take it as it is with '?check-valid-until=no' behind the image's name")
	case strings.Contains(all, "NO_PUBKEY"), strings.Contains(all, "not signed"):
		return hint.New(fmt.Errorf("the packages cannot be verified: %s", a.errors[0]),
			"install newer keys with 'apt install debian-archive-keyring'")
	}
	return fmt.Errorf("mmdebstrap failed: %s\nits last lines:\n  %s", a.errors[0], strings.Join(a.last, "\n  "))
}

// missing returns apt's messages about packages that do not exist.
func (a *aptLog) missing() []string {
	var lines []string
	for _, line := range a.errors {
		if strings.Contains(line, "Unable to locate package") || strings.Contains(line, "has no installation candidate") {
			lines = append(lines, line)
		}
	}
	return lines
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
