// Package crossing says what a path of the host is called in a distro and the other way round,
// and which variables of a caller's environment go with a command. It is pure.
//
//	vars, err := crossing.Variables(os.Getenv("LSUBENV"))
//	guest, ok := crossing.ToGuest("/home/ann/src", []string{"/home/ann"}, machine.GuestPath)
package crossing

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// HostDir is where distros see folders of the host.
const HostDir = "/mnt/host"

// ToGuest returns the name that distros have for a path of the host: absolute, clean and
// without links. dirs are the shared folders; name is their path below [HostDir]. ok is false
// for a path in none of them.
func ToGuest(host string, dirs []string, name func(string) string) (guest string, ok bool) {
	for _, dir := range dirs {
		rel, err := filepath.Rel(dir, host)
		if err == nil && filepath.IsLocal(rel) {
			return path.Join(HostDir, name(dir), filepath.ToSlash(rel)), true
		}
	}
	return "", false
}

// ToHost returns the host's name for a path of distros: absolute and clean, with slashes. ok is
// false for one that is no shared folder's.
func ToHost(guest string, dirs []string, name func(string) string) (host string, ok bool) {
	for _, dir := range dirs {
		at := path.Join(HostDir, name(dir))
		if rest, found := strings.CutPrefix(guest, at); found && (rest == "" || rest[0] == '/') {
			return filepath.Join(dir, filepath.FromSlash(rest)), true
		}
	}
	return "", false
}

// Variable is one that goes with a command.
type Variable struct {
	Name   string
	Path   bool // /p: its value is a path
	List   bool // /l: a list of paths
	ToHost bool // /w: only from a distro to the host
}

// Variables reads LSUBENV, whose form is that of WSLENV: NAME[/FLAGS]:NAME[/FLAGS]… The flags
// are p, l, u (only from the host to a distro, as all here) and w.
func Variables(spec string) (all []Variable, err error) {
	for word := range strings.SplitSeq(spec, ":") {
		name, flags, _ := strings.Cut(word, "/")
		if name == "" {
			if flags != "" {
				return nil, fmt.Errorf("%q names no variable", word)
			}
			continue
		}
		v := Variable{Name: name}
		u := false
		for _, f := range flags {
			switch f {
			case 'p':
				v.Path = true
			case 'l':
				v.List = true
			case 'u':
				u = true
			case 'w':
				v.ToHost = true
			case '/':
			default:
				return nil, fmt.Errorf("%q has the unknown flag %q: they are p, l, u and w", word, f)
			}
		}
		if v.Path && v.List {
			return nil, fmt.Errorf("%q is a path or a list of paths, not both", word)
		}
		v.ToHost = v.ToHost && !u
		all = append(all, v)
	}
	return all, nil
}
