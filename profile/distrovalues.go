package profile

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// parseImage reads the name of an image. Which there are, only servers know.
func parseImage(text string) (string, error) {
	if text == "" || len(text) > 512 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%q is no image; write debian, alpine:3.22 or oci:REGISTRY/REPOSITORY:TAG", text)
	}
	return text, nil
}

// parseUser reads the name of an account, as useradd takes it.
func parseUser(text string) (string, error) {
	if !isUser.MatchString(text) {
		return "", fmt.Errorf("%q cannot be the name of an account", text)
	}
	return text, nil
}

var isUser = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

func parseMemoryMax(text string) (int64, error) {
	n, err := ParseSize(text)
	if err == nil && n < MinMemoryMax {
		err = fmt.Errorf("%s is too little: 16M is the least; none is no limit", text)
	}
	return n, err
}

func parseCPUMax(text string) (int64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f*1000 >= MinCPUMax) || f > 1e6 {
		return 0, fmt.Errorf("%q is no number of CPUs; write 1.5, or none for no limit", text)
	}
	return int64(math.Round(f * 1000)), nil
}

func parsePIDsMax(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < MinPIDsMax {
		return 0, fmt.Errorf("%q is no number of processes; %d is the least, none is no limit", text, MinPIDsMax)
	}
	return n, nil
}

var isVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// parseLine reads a value that lines of a file can hold.
func parseLine(text string) (string, error) {
	if strings.ContainsAny(text, "\x00\n\r") {
		return "", errors.New("has to be one line")
	}
	return text, nil
}

// parseText reads what a file or a script has.
func parseText(text string) (string, error) {
	if strings.Contains(text, "\x00") {
		return "", errors.New("has a NUL byte")
	}
	return text, nil
}

func parsePackage(text string) (string, error) {
	if !isPackage.MatchString(text) {
		return "", fmt.Errorf("%q is no name of a package", text)
	}
	return text, nil
}

var isPackage = regexp.MustCompile(`^[A-Za-z0-9@][A-Za-z0-9+._:@-]{0,127}$`)

// parseGuestFile reads the path of a file in a distro.
func parseGuestFile(text string) (string, error) {
	rest, home := strings.CutPrefix(text, "~/")
	if home {
		rest = "/" + rest
	}
	switch {
	case !strings.HasPrefix(rest, "/"):
		return "", fmt.Errorf("%q is no path in a distro; write /etc/motd or ~/.profile", text)
	case strings.ContainsAny(rest, "\x00\n\r"), path.Clean(rest) != rest, rest == "/", len(rest) > 1024:
		return "", fmt.Errorf("%q is no path of a file", text)
	}
	return text, nil
}

// parseHostFile reads a path of the host that may be relative; see [HostFile].
func parseHostFile(text string) (string, error) {
	if text == "" || strings.ContainsAny(text, "\x00\n\r") {
		return "", fmt.Errorf("%q is no path", text)
	}
	return text, nil
}

// HostFile makes a path of the host of one that a key of the profile names: a relative one
// is relative to dir, and otherwise as [Expand] does it.
func HostFile(text, dir, home string, getenv func(string) string) (string, error) {
	if _, err := parseHostPath(text); err != nil {
		return filepath.Join(dir, filepath.FromSlash(text)), nil
	}
	return Expand(text, home, getenv)
}

func parseFileMode(text string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%q is no mode; write 0644", text)
	}
	return uint32(n), nil
}

func parseOwner(text string) (string, error) {
	if !isOwner.MatchString(text) {
		return "", fmt.Errorf("%q is no owner; write USER or USER:GROUP", text)
	}
	return text, nil
}

var isOwner = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?$`)

func parseStepName(text string) (string, error) {
	if text == "" || len(text) > 100 || text != strings.TrimSpace(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		return "", fmt.Errorf("%q is no name; write one line of at most 100 bytes", text)
	}
	return text, nil
}

func parseTimeout(text string) (time.Duration, error) {
	t, err := time.ParseDuration(text)
	switch {
	case err != nil && isNumber(text):
		return 0, fmt.Errorf("%q has no unit; write %ss or %sm", text, text, text)
	case err != nil:
		return 0, fmt.Errorf("%q is no time; write 90s, 5m or 1h30m", text)
	case t < time.Second:
		return 0, fmt.Errorf("%q is too short; 1s is the least", text)
	}
	return t, nil
}

func parseProbeURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1" || u.User != nil {
		return "", fmt.Errorf("%q is no address in the distro; write http://localhost:8080/health", text)
	}
	return text, nil
}
