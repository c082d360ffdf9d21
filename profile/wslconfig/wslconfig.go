// Package wslconfig reads a user's .wslconfig of WSL, and says which keys of a profile mean the
// same. It never refuses a file: WSL does not either.
package wslconfig

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
	"github.com/lsub/lsub/wslconf"
)

// Setting is a line of the file, and what becomes of it.
type Setting struct {
	Line  int    // of the file; the first is 1
	Key   string // as WSL spells it, "wsl2.memory"; "" for a line that is no setting
	Value string
	To    string // the key of the profile, "" where there is none for the value
	YAML  string // the value for To, in one line
	Why   string // why there is none, or what is different
}

// Import says what becomes of each line of a file. It takes UTF-8 and UTF-16, with or without a
// byte order mark, with line ends of Windows, and without one at the end.
func Import(data []byte) []Setting {
	text, _ := wslconf.Decode(data)
	entries, problems := wslconf.Parse(text)
	var all []Setting
	for _, e := range entries {
		s := Setting{Line: e.Line, Key: e.Name, Value: e.Value}
		k, known := keys[e.Name]
		switch {
		case known:
			s.Key = k.name
			s.To, s.YAML, s.Why = k.convert(e.Value)
		default:
			s.Why = unknown(e.Name)
		}
		all = append(all, s)
	}
	for _, p := range problems {
		all = append(all, Setting{Line: p.Line, Why: "WSL does not understand this line: " + p.Text})
	}
	slices.SortStableFunc(all, func(a, b Setting) int { return a.Line - b.Line })
	return all
}

func unknown(name string) string {
	var names []string
	for n, k := range keys {
		if _, key, _ := strings.Cut(n, "."); key == name || strings.HasSuffix(name, "."+key) {
			return "WSL has no such key; it has " + k.name
		}
		names = append(names, n)
	}
	slices.Sort(names)
	if near := hint.Nearest(name, names); near != "" {
		return "WSL has no such key; it has " + keys[near].name
	}
	return "WSL has no such key"
}

// key is one that WSL knows.
type key struct {
	name    string
	convert func(value string) (to, yaml, why string)
}

// keys are those that WSL knows, in small letters.
var keys = map[string]key{}

// add adds a key of WSL's.
func add(name string, convert func(string) (to, yaml, why string)) {
	keys[strings.ToLower(name)] = key{name, convert}
}

// none is a key that no profile has.
func none(why string) func(string) (string, string, string) {
	return func(string) (string, string, string) { return "", "", why }
}

// bad says that WSL takes no such value, and goes on without it.
func bad(value, want string) (string, string, string) {
	return "", "", fmt.Sprintf("%q is not %s; WSL uses its default then", value, want)
}

// size is a number of bytes: in WSL all units are powers of 1024.
func size(to string) func(string) (string, string, string) {
	return func(value string) (string, string, string) {
		text := strings.ToUpper(strings.TrimSpace(value))
		digits := strings.TrimRight(text, "KMGTB")
		unit := strings.TrimSuffix(text[len(digits):], "B")
		if _, err := strconv.ParseUint(digits, 10, 63); err != nil || len(unit) > 1 {
			return bad(value, "a size")
		}
		if unit != "" {
			unit += "iB"
		}
		return checked(to, digits+unit, value)
	}
}

// checked returns a value of the profile if it takes it.
func checked(to, yaml, value string) (string, string, string) {
	if _, _, err := profile.Insert("profile.yaml", nil, to, yaml); err != nil {
		return "", "", fmt.Sprintf("a profile does not take %q as %s", value, to)
	}
	return to, yaml, ""
}

func number(to string) func(string) (string, string, string) {
	return func(value string) (string, string, string) {
		if _, err := strconv.ParseInt(value, 10, 32); err != nil {
			return bad(value, "a number")
		}
		return checked(to, value, value)
	}
}

// truth gives each truth value what it means: "" says that it needs no key of the profile.
func truth(to, yes, no, why string) func(string) (string, string, string) {
	return func(value string) (string, string, string) {
		on, err := parseBool(value)
		if err != nil {
			return bad(value, "true or false")
		}
		yaml := no
		if on {
			yaml = yes
		}
		if yaml == "" {
			return "", "", why
		}
		return checked(to, yaml, value)
	}
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, strconv.ErrSyntax
}

// milliseconds is a time; below 0 for ever.
func milliseconds(to string) func(string) (string, string, string) {
	return func(value string) (string, string, string) {
		n, err := strconv.ParseInt(value, 10, 32)
		switch {
		case err != nil:
			return bad(value, "a number of milliseconds")
		case n < 0:
			return to, "never", ""
		case n < 1000:
			return to, "1s", "lsub's least is 1s"
		}
		return to, (time.Duration(n) * time.Millisecond).String(), ""
	}
}

// mode is how WSL's VM reaches the world.
func mode(value string) (string, string, string) {
	switch strings.ToLower(value) {
	case "nat", "consomme", "virtioproxy":
		return "", "", "lsub's network is of this kind always"
	case "mirrored":
		return "", "", "not needed: ports of distros are on the host's localhost, and the host's are at host.lsub.internal"
	case "bridged":
		return "", "", "lsub's VM has no address of its own on the LAN; ports.host_address lets other machines in"
	case "none":
		return "", "", "lsub's VM has a network always; network.host_access closes the way to the host"
	}
	return bad(value, "a kind of network")
}

// ports is a list of ports that distros have for themselves.
func ports(value string) (string, string, string) {
	var list []string
	for text := range strings.SplitSeq(value, ",") {
		if text = strings.TrimSpace(text); text != "" {
			list = append(list, text)
		}
	}
	if len(list) == 0 {
		return "", "", "it names no port"
	}
	return checked("ports.ignore", "["+strings.Join(list, ", ")+"]", value)
}
