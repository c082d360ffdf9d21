package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lsub/lsub/hint"
)

// fromWSL turns a command line that is spelled for wsl.exe into one of lsub's; any other
// comes back as it is. args are those after the program's name. What lsub does not have is
// refused with the reason.
func fromWSL(args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	word, rest := args[0], args[1:]
	if verb, ok := wslVerbs[word]; ok {
		return verb(word, rest)
	}
	return wslRun(args)
}

// wslVerbs are wsl.exe's flags that say what to do.
var wslVerbs = map[string]func(word string, rest []string) ([]string, error){
	"--list": wslList, "-l": wslList,
	"--set-default": wslOne("set-default"), "-s": wslOne("set-default"), "--setdefault": wslOne("set-default"),
	"--terminate": wslOne("stop"), "-t": wslOne("stop"),
	"--unregister": wslOne("unregister", "--yes"), // wsl.exe does not ask
	"--shutdown":   wslOne("shutdown"), "--status": wslOne("status"), "-v": wslOne("version"),
	"--install": wslInstall, "--import": wslImport, "--export": wslExport, "--manage": wslManage,

	"--import-in-place":     wslRefuse("a distro shares its data disk with others, so it cannot be a disk image of its own", "'lsub import NAME FILE' takes archives"),
	"--mount":               wslRefuse("the VM cannot be given disks of the host", ""),
	"--unmount":             wslRefuse("the VM cannot be given disks of the host", ""),
	"--set-version":         wslRefuse("all distros share one kernel in one VM; there is no version 1", ""),
	"--set-default-version": wslRefuse("all distros share one kernel in one VM; there is no version 1", ""),
	"--update":              wslRefuse("lsub does not replace itself", "replace the program, then run 'lsub shutdown' (docs/upgrade.md)"),
	"--uninstall":           wslRefuse("lsub does not remove itself", "unregister the distros, run 'lsub shutdown', and delete the program"),
	"--debug-shell":         wslRefuse("the VM has no shell of its own", "docs/debugging.md says how to look into it"),
	"--system":              wslRefuse("there is no system distro", ""),
	"--distribution-id":     wslRefuse("distros are found by name", "'lsub list' shows the names"),
}

// wslRefuse refuses a flag.
func wslRefuse(why, advice string) func(string, []string) ([]string, error) {
	return func(word string, _ []string) ([]string, error) { return nil, wslError(word, why, advice) }
}

func wslError(word, why, advice string) error {
	if advice == "" {
		advice = "'lsub --help' shows what there is"
	}
	return hint.New(usage{fmt.Errorf("%s: %s", word, why)}, advice)
}

// wslOne is a verb whose arguments are those of lsub's command.
func wslOne(command ...string) func(string, []string) ([]string, error) {
	return func(_ string, rest []string) ([]string, error) { return append(slices.Clone(command), rest...), nil }
}

func wslList(_ string, rest []string) ([]string, error) {
	out := []string{"list"}
	online := slices.Contains(rest, "-o") || slices.Contains(rest, "--online")
	for _, arg := range rest {
		switch arg {
		case "--all": // those that are being installed, which lsub does not list
		case "-v", "--verbose":
			if arg = "--wsl"; online {
				arg = "--verbose"
			}
			out = append(out, arg)
		default:
			out = append(out, arg)
		}
	}
	return out, nil
}

// wslFlags takes the flags of a verb apart. Of those in with, it returns the values; of those
// in alone, that they are there. Those in refused are an error, with the reason.
func wslFlags(word string, rest []string, with, alone map[string]string, refused map[string]string) (flags map[string]string, args []string, err error) {
	flags = map[string]string{}
	for i := 0; i < len(rest); i++ {
		name, value, inline := strings.Cut(rest[i], "=")
		if why, ok := refused[name]; ok {
			return nil, nil, wslError(word+" "+name, why, "")
		}
		if long, ok := alone[name]; ok {
			flags[long] = "true"
			continue
		}
		long, ok := with[name]
		switch {
		case !ok && isFlag(rest[i]):
			return nil, nil, badUsage("lsub", "%s: unknown flag %s", word, name)
		case !ok:
			args = append(args, rest[i])
			continue
		case !inline && i+1 == len(rest):
			return nil, nil, badUsage("lsub", "%s %s needs a value", word, name)
		case !inline:
			i++
			value = rest[i]
		}
		flags[long] = value
	}
	return flags, args, nil
}

const (
	noVersion1 = "all distros share one kernel in one VM; there is no version 1"
	noDisks    = "distros share one data disk; there is no disk image for each"
)

func wslInstall(word string, rest []string) ([]string, error) {
	flags, args, err := wslFlags(word, rest,
		map[string]string{"-d": "distro", "--distribution": "distro", "--name": "name", "-f": "from-file", "--from-file": "from-file", "--version": "version"},
		map[string]string{"-n": "no-launch", "--no-launch": "no-launch", "--web-download": "web", "--prompt-before-exit": "web"},
		map[string]string{
			"--location": "all distros are on the profile's data disk", "-l": "all distros are on the profile's data disk",
			"--no-distribution": "lsub needs nothing but itself", "--enable-wsl1": noVersion1, "--fixed-vhd": noDisks, "--vhd-size": noDisks,
			"--legacy": "there is one catalogue for each source", "--inbox": "lsub is no part of the system", "--pre-release": "lsub does not replace itself",
		})
	switch {
	case err != nil:
		return nil, err
	case flags["version"] == "1":
		return nil, wslError(word+" --version 1", noVersion1, "")
	}
	out := []string{"install"}
	for _, name := range []string{"name", "from-file"} {
		if v, ok := flags[name]; ok {
			out = append(out, "--"+name, v)
		}
	}
	if d := flags["distro"]; d != "" {
		args = append([]string{d}, args...)
	}
	return append(out, args...), nil
}

func wslImport(word string, rest []string) ([]string, error) {
	flags, args, err := wslFlags(word, rest, map[string]string{"--version": "version"}, nil, map[string]string{"--vhd": noDisks})
	switch {
	case err != nil:
		return nil, err
	case flags["version"] == "1":
		return nil, wslError(word+" --version 1", noVersion1, "")
	case len(args) != 3:
		return nil, badUsage("lsub import", "%s needs a name, a directory (which lsub does not use) and a file", word)
	}
	return []string{"import", args[0], args[2]}, nil
}

func wslExport(word string, rest []string) ([]string, error) {
	flags, args, err := wslFlags(word, rest, map[string]string{"--format": "format"}, nil, map[string]string{"--vhd": noDisks})
	switch {
	case err != nil:
		return nil, err
	case flags["format"] == "vhd":
		return nil, wslError(word+" --format vhd", noDisks, "")
	}
	out := []string{"export"}
	if f, ok := flags["format"]; ok {
		out = append(out, "--format", f)
	}
	return append(out, args...), nil
}

func wslManage(word string, rest []string) ([]string, error) {
	const sparse = "the data disk always takes only what is in it"
	const moved = "all distros are on the profile's data disk, which LSUB_HOME places"
	const grows = "the data disk is sparse and large enough; it takes only what is in it"
	flags, args, err := wslFlags(word, rest, map[string]string{"--set-default-user": "set-default-user"}, nil, map[string]string{
		"--move": moved, "-m": moved, "--set-sparse": sparse, "-s": sparse, "--resize": grows, "-r": grows,
	})
	if err != nil {
		return nil, err
	}
	out := []string{"manage"}
	if u, ok := flags["set-default-user"]; ok {
		out = append(out, "--set-default-user", u)
	}
	return append(out, args...), nil
}

// wslRun turns the flags with which wsl.exe runs a command into lsub's. A line without such
// flags stays as it is.
func wslRun(args []string) ([]string, error) {
	var out []string
	noShell, changed := false, false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, _, inline := strings.Cut(arg, "=")
		switch name {
		case "~":
			out, changed = append(out, "--cd", "~"), true
			continue
		case "-e", "--exec":
			noShell, changed = true, true
			continue
		case "--shell-type":
			if i++; i == len(args) || !slices.Contains([]string{"standard", "login", "none"}, args[i]) {
				return nil, badUsage("lsub", "--shell-type is standard, login or none")
			}
			noShell, changed = noShell || args[i] == "none", true
			continue
		case "--distribution":
			arg, changed = "--distro"+strings.TrimPrefix(arg, name), true
		case "--system", "--distribution-id", "--parent-console":
			return nil, wslError(name, "lsub has no such flag of wsl.exe's", "")
		case "-d", "--distro", "-u", "--user", "--cd", "--profile", "--log-level", "--home":
		default: // a command, "--" or a flag that is not wsl.exe's
			if !changed {
				return args, nil
			}
			rest := args[i:]
			if arg == "--" {
				rest = args[i+1:]
			}
			return slices.Concat(out, noShellFlag(noShell), []string{"--"}, rest), nil
		}
		if out = append(out, arg); !inline {
			if i++; i == len(args) {
				return args, nil // the parser says what is missing
			}
			out = append(out, args[i])
		}
	}
	switch {
	case !changed:
		return args, nil
	case noShell:
		return nil, usage{errors.New("--exec needs a command")}
	}
	return out, nil
}

func noShellFlag(is bool) []string {
	if !is {
		return nil
	}
	return []string{"--no-shell"}
}
