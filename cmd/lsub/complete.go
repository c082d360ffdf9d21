package main

import (
	"embed"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/printable"
	"github.com/lsub/lsub/profile/templates"
)

//go:embed completion
var completionScripts embed.FS

// shells are those that lsub knows, with the endings of their scripts.
var shells = map[string]string{"bash": "bash", "zsh": "zsh", "fish": "fish", "powershell": "ps1"}

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a script that completes commands, flags and names in a shell",
		UsageText:   "lsub completion bash|zsh|fish|powershell",
		Description: "The first lines of the script say where it goes.",
		Action: func(c *cli.Context) error {
			ending, ok := shells[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return badUsage("lsub completion", "completion takes one of bash, zsh, fish and powershell")
			}
			script, err := completionScripts.ReadFile("completion/lsub." + ending)
			if err == nil {
				_, err = a.stdout.Write(script)
			}
			return err
		},
	}
}

// completeCommand is what the scripts ask: it prints what the last of the words may become, with
// what it means behind a tab, or ":files" for files of the host.
func (a *app) completeCommand() *cli.Command {
	return &cli.Command{
		Name: "complete", Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			if len(words) > 0 && words[0] == "--" {
				words = words[1:]
			}
			if len(words) == 0 {
				return errors.New("there is no word")
			}
			for i := range words { // PowerShell has no empty arguments
				if words[i] == `""` {
					words[i] = ""
				}
			}
			last := words[len(words)-1]
			done := &completer{app: a, machine: a.machine}
			for _, w := range done.complete(a.root(), words[:len(words)-1], last) {
				if w.name == files || strings.HasPrefix(strings.ToLower(w.name), strings.ToLower(last)) {
					line := printable.Line(w.name)
					if w.about != "" {
						line += "\t" + printable.Line(w.about)
					}
					io.WriteString(a.stdout, line+"\n")
				}
			}
			return nil
		},
	}
}

// word is what a word may become.
type word struct{ name, about string }

// files stands for the files of the host.
const files = ":files"

// completer knows what may come next. It starts nothing.
type completer struct {
	app     *app
	machine *machine.Machine
}

func (c *completer) complete(root *cli.App, before []string, last string) []word {
	commands, flags, path := root.Commands, root.Flags, ""
	var args []string // of the command
	for i := 0; i < len(before); i++ {
		w := before[i]
		switch {
		case w == "--":
			return nil // the distro's affair
		case isFlag(w):
			name, takesValue := flagNamed(flags, w)
			if !takesValue {
				if _, value, ok := strings.Cut(w, "="); ok && name == "profile" {
					c.useProfile(value)
				}
				continue
			}
			if i++; i == len(before) {
				return c.valuesOf(path, name)
			}
			if name == "profile" && path == "" {
				c.useProfile(before[i])
			}
			if path == "" && name != "profile" && name != "log-level" {
				commands = nil // what follows is for the login shell
			}
		case len(args) == 0 && find(commands, w) != nil:
			cmd := find(commands, w)
			commands, flags, path = cmd.Subcommands, cmd.Flags, strings.TrimSpace(path+" "+cmd.Name)
		case path == "":
			return nil
		default:
			args = append(args, w)
			if path == "exec" || path == "run" {
				return nil
			}
		}
	}
	if strings.HasPrefix(last, "-") {
		return flagWords(flags)
	}
	if len(args) == 0 && len(commands) > 0 {
		return commandWords(commands)
	}
	return c.argument(path, args)
}

func (c *completer) useProfile(name string) {
	if m, err := c.machine.Other(name); err == nil {
		c.machine = m
	}
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) && !c.Hidden {
			return c
		}
	}
	return nil
}

func commandWords(commands []*cli.Command) (words []word) {
	for _, c := range commands {
		if !c.Hidden {
			words = append(words, word{c.Name, c.Usage})
		}
	}
	return words
}

func flagWords(all []cli.Flag) (words []word) {
	for _, f := range all {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		about := ""
		if d, ok := f.(cli.DocGenerationFlag); ok {
			about = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		words = append(words, word{"--" + f.Names()[0], about})
	}
	return append(words, word{"--help", "show what the command takes"})
}

func wordsOf(names ...string) (words []word) {
	for _, n := range names {
		words = append(words, word{name: n})
	}
	return words
}

// valuesOf are the values of a flag.
func (c *completer) valuesOf(command, flag string) []word {
	switch flag {
	case "distro":
		return c.distros()
	case "profile":
		return c.profiles()
	case "template":
		return templateWords()
	case "for":
		return wordsOf("ready", "stopped", "port:")
	case "autostart":
		return wordsOf("vm", "login", "off")
	case "arch":
		return wordsOf("amd64", "arm64")
	case "log-level":
		return wordsOf("debug", "info", "warn", "error")
	case "carrier":
		return wordsOf("virtiofs", "stream")
	case "format":
		if command == "export" {
			return wordsOf("tar", "tar.gz", "tar.xz", "tar.zst", "oci")
		}
	case "file", "from-file", "output", "cd":
		return wordsOf(files)
	}
	return nil
}

// argument is the next argument of a command.
func (c *completer) argument(path string, args []string) []word {
	switch path {
	case "start", "stop", "wait", "manage", "set-default", "unregister", "logs", "exec":
		if len(args) == 0 {
			return c.distros()
		}
	case "clone", "rename":
		if len(args) == 0 {
			return c.distros()
		}
	case "run":
		return append(c.distros(), word{"debian", "an image"})
	case "export":
		if len(args) == 0 {
			return c.distros()
		}
		return wordsOf(files)
	case "import":
		if len(args) == 1 {
			return wordsOf(files)
		}
	case "snapshot":
		switch len(args) {
		case 0:
			return wordsOf("create", "list", "restore", "delete")
		case 1:
			return c.distros()
		case 2:
			if args[0] == "restore" || args[0] == "delete" {
				return c.snapshots(args[1])
			}
		}
	case "mount":
		if len(args) == 0 {
			return wordsOf("add", "remove", "list")
		}
		return wordsOf(files)
	case "completion":
		return wordsOf("bash", "zsh", "fish", "powershell")
	case "profile show", "profile edit", "profile delete":
		if len(args) == 0 {
			return c.profiles()
		}
	case "profile copy":
		if len(args) == 0 {
			return c.profiles()
		}
	case "profile templates":
		return templateWords()
	case "profile validate", "profile import-wslconfig":
		return wordsOf(files)
	}
	return nil
}

func (c *completer) distros() (words []word) {
	reg, err := c.machine.Registry()
	if err != nil {
		return nil
	}
	for _, d := range reg.Distros {
		words = append(words, word{d.Name, d.ImageName})
	}
	return words
}

func (c *completer) snapshots(distro string) (words []word) {
	reg, err := c.machine.Registry()
	if err != nil {
		return nil
	}
	d, err := reg.Find(distro)
	if err != nil {
		return nil
	}
	for _, s := range d.Snapshots {
		words = append(words, word{s.Name, s.Created.Local().Format("2006-01-02 15:04")})
	}
	return words
}

func (c *completer) profiles() []word {
	names := []string{}
	if c.machine.Exists() {
		names = append(names, c.machine.Profile())
	}
	others, err := c.machine.Others()
	if err != nil {
		return wordsOf(names...)
	}
	for _, m := range others {
		names = append(names, m.Profile())
	}
	slices.Sort(names)
	return wordsOf(names...)
}

func templateWords() (words []word) {
	for _, name := range templates.Names() {
		data, _ := templates.Read(name)
		words = append(words, word{name, templates.About(data)})
	}
	return words
}
