package profile

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ParseSize reads a number of bytes: "4G", "4GiB" and "4096M" are the same,
// and "4GB" is 4,000,000,000.
func ParseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKmMgGtTiIbB ")
	unit := strings.ToLower(strings.TrimSpace(text[len(digits):]))
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) || strings.ContainsAny(digits, "xX_pPeE+") {
		return 0, fmt.Errorf("%q is no size; write 512M or 4G", text)
	}
	factor := 1.0
	if unit != "" && unit != "b" {
		power := 1 + strings.IndexByte("kmgt", unit[0])
		switch unit[1:] {
		case "", "ib":
			factor = math.Pow(1024, float64(power))
		case "b":
			factor = math.Pow(1000, float64(power))
		default:
			power = 0
		}
		if power == 0 {
			return 0, fmt.Errorf("%q has no unit of sizes; write 512M or 4G", text)
		}
	}
	if n *= factor; n >= math.MaxInt64/2 {
		return 0, fmt.Errorf("%q is more than any machine has", text)
	}
	return int64(n), nil
}

// parseMemory is for the size of a VM, where a bare number is a slip.
func parseMemory(text string) (int64, error) {
	n, err := ParseSize(text)
	if err == nil && n < 1<<20 {
		err = fmt.Errorf("%s bytes are no memory for a VM; write 512M or 4G", text)
	}
	return n, err
}

func parsePercent(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
	if err != nil || n < 1 || n > 100 {
		return 0, fmt.Errorf("%q is no part of the host's; write 1%% to 100%%", text)
	}
	return n, nil
}

func parseCPUs(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no number of CPUs", text)
	}
	return n, nil
}

// ParseIdle reads a time to be idle: "90s", "5m", "1h30m", or "never".
func ParseIdle(text string) (time.Duration, error) {
	if text == "never" {
		return Never, nil
	}
	t, err := time.ParseDuration(text)
	switch {
	case err != nil && isNumber(text):
		return 0, fmt.Errorf("%q has no unit; write %ss, %sm or never", text, text, text)
	case err != nil:
		return 0, fmt.Errorf("%q is no time; write 90s, 5m, 1h30m or never", text)
	case t < time.Second:
		return 0, fmt.Errorf("%q is too short; 1s is the least", text)
	}
	return t, nil
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil
}

// parseBool takes YAML's words and those that people use.
func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", text)
}

// oneOf takes one of some words.
func oneOf[T ~string](words ...T) func(string) (T, error) {
	return func(text string) (T, error) {
		names := make([]string, len(words))
		for i, w := range words {
			if names[i] = string(w); names[i] == text {
				return w, nil
			}
		}
		return "", fmt.Errorf("%q is not one of %s", text, strings.Join(names, ", "))
	}
}

func parseAddr(text string) (netip.Addr, error) {
	if text == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("%q is no IP address", text)
	}
	return a.Unmap(), nil
}

// privateNetworks are where a VM's network may be.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"),
}

func parseSubnet(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || !p.Addr().Is4():
		return p, fmt.Errorf("%q is no IPv4 network; write 192.168.127.0/24", text)
	case p != p.Masked():
		return p, fmt.Errorf("%s is an address in a network; the network is %v", text, p.Masked())
	case p.Bits() > 28 || p.Bits() < 16:
		return p, fmt.Errorf("%s has to be between /16 and /28", text)
	}
	for _, private := range privateNetworks {
		if private.Contains(p.Addr()) {
			return p, nil
		}
	}
	return p, fmt.Errorf("%s is not a private network; use one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16", text)
}

// parseServer reads the address of a DNS server.
func parseServer(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(text)
	if err == nil {
		return netip.AddrPortFrom(a.Unmap(), 53), nil
	}
	s, err := netip.ParseAddrPort(text)
	if err != nil || s.Port() == 0 {
		return s, fmt.Errorf("%q is no address of a DNS server; write 192.0.2.53 or 192.0.2.53:5353", text)
	}
	return s, nil
}

// parseDomain reads a DNS name, in small letters and without a dot at its end.
func parseDomain(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("%q is no domain name", text)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel.MatchString(label) {
			return "", fmt.Errorf("%q is no domain name", text)
		}
	}
	return name, nil
}

var isLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// parseDistro reads the name of a distro, as the registry has them.
func parseDistro(text string) (string, error) {
	if !isDistro.MatchString(text) {
		return "", fmt.Errorf("%q cannot be the name of a distro", text)
	}
	return strings.ToLower(text), nil
}

var isDistro = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func parseCatalogueURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		return "", fmt.Errorf("%q is no https address", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("the address of a catalogue has no user, '?' and '#'")
	}
	return text, nil
}

// parseProxyURL takes what curl and others do: a URL, or HOST:PORT.
func parseProxyURL(text string) (string, error) {
	full := text
	if !strings.Contains(text, "://") {
		full = "http://" + text
	}
	u, err := url.Parse(full)
	if err == nil && u.Hostname() != "" {
		switch u.Scheme {
		case "http", "https", "socks4", "socks4a", "socks5", "socks5h":
			return text, nil
		}
	}
	return "", fmt.Errorf("%q is no proxy; write http://HOST:PORT", text)
}

// parseHostPath reads a path of the host; see [Expand].
func parseHostPath(text string) (string, error) {
	if strings.ContainsAny(text, "\x00\n") || !(filepath.IsAbs(text) || strings.HasPrefix(text, "/") || strings.HasPrefix(text, "~/") || strings.HasPrefix(text, "$") || isWindowsPath.MatchString(text)) {
		return "", fmt.Errorf("%q is no path from the root, from ~/ or from a $VARIABLE", text)
	}
	return text, nil
}

var isWindowsPath = regexp.MustCompile(`^([A-Za-z]:[\\/]|\\\\)`)

// Expand makes a path of the host of what a profile has: with the home directory
// for ~/ at the start, and the values of variables for $NAME and ${NAME}.
// getenv is os.Getenv, but for tests; home is the user's directory.
func Expand(path, home string, getenv func(string) string) (string, error) {
	var unset string
	full := path
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		full = filepath.Join(home, rest)
	}
	full = variable.ReplaceAllStringFunc(full, func(v string) string {
		name := strings.Trim(v, "${}")
		value := getenv(name)
		if value == "" {
			unset = name
		}
		return value
	})
	switch {
	case unset != "":
		return "", fmt.Errorf("%s: $%s is not set", path, unset)
	case !filepath.IsAbs(full):
		return "", fmt.Errorf("%s means %q, which is no path from the root", path, full)
	}
	return filepath.Clean(full), nil
}

var variable = regexp.MustCompile(`\$(\w+|\{\w+\})`)
