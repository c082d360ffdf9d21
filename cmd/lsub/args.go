package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange makes of a command line one that package cli reads as it is meant.
//
// One that does not start with a command of lsub's own is for the login shell,
// so it gets the name of the command that stands for that: "lsub -- list" runs
// the distro's list, and flags of the guest's command stay its own. With a flag
// of the login shell's, every word is the distro's: "lsub -d other list". For
// lsub's commands, flags may follow arguments.
func arrange(root *cli.App, args []string) []string {
	forShell := false
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return slices.Concat(args[:i], []string{shellName, "--"}, args[i+1:])
		}
		if !isFlag(arg) {
			if arg == "help" && !forShell {
				return slices.Concat(args[:i], args[i+1:min(i+2, len(args))], []string{"--help"})
			}
			c := root.Command(arg)
			if c == nil || forShell {
				return slices.Concat(args[:i], []string{shellName, "--"}, args[i:])
			}
			if c.SkipFlagParsing {
				return args
			}
			if at := slices.Index(args, "-h"); c.Name == "path" && len(args) > i+2 && at > i {
				args = slices.Replace(slices.Clone(args), at, at+1, "--host") // -h with a path is no call for help
			}
			if c.Name != "exec" && c.Name != "run" && asksForHelp(args[i+1:]) {
				return append(slices.Clone(args[:i+1]), "--help") // a word before it is no topic
			}
			return append(slices.Clone(args[:i+1]), flagsFirst(c, args[i+1:])...)
		}
		name, takesValue := flagNamed(root.Flags, arg)
		switch name {
		case "distro", "user", "cd":
			forShell = true
		}
		if takesValue {
			i++
		}
	}
	return args
}

// flagsFirst puts the flags of a command before its arguments, and gives them
// their long names. What follows the first argument of exec and run is a
// command of the guest's and stays as it is.
func flagsFirst(c *cli.Command, args []string) []string {
	if len(args) > 0 {
		for _, sub := range c.Subcommands {
			if sub.HasName(args[0]) {
				return append([]string{args[0]}, flagsFirst(sub, args[1:])...)
			}
		}
	}
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" || !isFlag(arg) && (c.Name == "exec" || c.Name == "run") {
			if arg == "--" {
				i++
			}
			rest = append(rest, args[i:]...)
			break
		}
		if !isFlag(arg) {
			rest = append(rest, arg)
			continue
		}
		name, takesValue := flagNamed(c.Flags, arg)
		if apart := shortFlags(c.Flags, arg); name == "" && apart != nil {
			args = slices.Concat(args[:i], apart, args[i+1:])
			i--
			continue
		}
		if name != "" {
			_, value, hasValue := strings.Cut(arg, "=")
			if arg = "--" + name; hasValue {
				arg += "=" + value
			}
		}
		flags = append(flags, arg)
		if takesValue && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	if len(rest) == 0 {
		return flags
	}
	return slices.Concat(flags, []string{"--"}, rest)
}

func isFlag(arg string) bool { return strings.HasPrefix(arg, "-") && arg != "-" }

// shortFlags takes "-qv" apart: "-q", "-v". It returns nil where that is not
// what arg is.
func shortFlags(flags []cli.Flag, arg string) []string {
	if len(arg) < 3 || arg[1] == '-' {
		return nil
	}
	var apart []string
	for i, letter := range arg[1:] {
		one := "-" + string(letter)
		name, takesValue := flagNamed(flags, one)
		if name == "" || takesValue && i+len(one) < len(arg) {
			return nil
		}
		apart = append(apart, one)
	}
	return apart
}

// flagNamed returns the long name of the flag that arg gives, "" for an unknown
// one, and whether its value is the argument after it.
func flagNamed(flags []cli.Flag, arg string) (name string, takesValue bool) {
	short, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), short) {
			_, isBool := f.(*cli.BoolFlag)
			return f.Names()[0], !isBool && !hasValue
		}
	}
	return "", false
}

// asksForHelp tells whether a flag for help is among the arguments of a command.
func asksForHelp(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--help") || slices.Contains(args, "-h")
}
