package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/converge"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
)

func (a *app) upCommand() *cli.Command {
	return &cli.Command{
		Name: "up", Usage: "make the distros what the profile's file says, and start them",
		UsageText: "lsub up [-f FILE] [--set NAME=VALUE]… [--dry-run] [--restart] [--prune] [--yes] [--json]",
		Description: "It installs what is missing, changes settings, writes files, installs packages and runs the steps that have not been run. " +
			"A second run does nothing. If a step fails, the next run goes on with it. docs/profile.md describes the file.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "make a copy of `FILE` the profile's file first; the one before is kept as profile.yaml.old"},
			&cli.StringSliceFlag{Name: "set", Usage: "give the file's param `NAME=VALUE`; it is kept until the next --set of it, or -f"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print what would be done, and do nothing"},
			&cli.BoolFlag{Name: "restart", Usage: "restart the VM and distros if a change needs it"},
			&cli.BoolFlag{Name: "prune", Usage: "remove distros, packages and files that 'lsub up' has made and that left the file"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "ask no questions"},
			&cli.BoolFlag{Name: "json", Usage: "print what happens as lines of JSON"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub up", "up takes no arguments; give a file with -f")
			}
			p, dir, err := a.wantedProfile(c)
			if err != nil {
				return err
			}
			progress := a.newProgress()
			defer progress.end()
			tell := &upEvents{app: a, json: c.Bool("json")}
			result, err := a.converger(dir).Up(c.Context, p, converge.Options{
				DryRun: c.Bool("dry-run"), Restart: c.Bool("restart"), Prune: c.Bool("prune"),
				Confirm: a.confirmUnless(c.Bool("yes")), Tell: tell.tell,
			})
			if err == nil && result.Changes == 0 && !tell.json {
				progress.end()
				fmt.Fprintln(a.stdout, "nothing to do")
			}
			return err
		},
	}
}

func (a *app) downCommand() *cli.Command {
	return &cli.Command{
		Name: "down", Usage: "stop the distros of the profile's file", UsageText: "lsub down [--timeout TIME] [--json]",
		Description: "It removes nothing: 'lsub up' starts them again.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: distro.StopTimeout, Usage: "kill what still runs after `TIME`"},
			&cli.BoolFlag{Name: "json", Usage: "print what happens as lines of JSON"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub down", "down takes no arguments; 'lsub stop DISTRO' stops a single distro")
			}
			p, err := a.machine.LoadProfile()
			if err != nil {
				return err
			}
			tell := &upEvents{app: a, json: c.Bool("json")}
			return a.converger("").Down(c.Context, p, c.Duration("timeout"), tell.tell)
		},
	}
}

func (a *app) converger(dir string) *converge.Converger {
	return converge.New(converge.Config{Service: a.distros, Machine: a.machine, Dir: dir})
}

// wantedProfile returns the profile that up is for, and the directory of its relative paths.
func (a *app) wantedProfile(c *cli.Context) (*profile.Profile, string, error) {
	file := c.String("file")
	set, err := params(c.StringSlice("set"))
	if err != nil {
		return nil, "", err
	}
	if file == "" {
		all := maps.Clone(a.machine.ProfileParams())
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, set)
		p, err := a.parseProfile(a.machine.ProfileFile(), a.machine.ProfileDir(), all)
		if err == nil && !c.Bool("dry-run") && len(set) > 0 {
			err = a.machine.SetProfileParams(all)
		}
		if err != nil {
			return nil, "", err
		}
		origin := a.machine.ProfileOrigin()
		if origin == "" {
			return p, a.machine.Dir(), nil
		}
		if a.differ(origin) {
			a.note("note", fmt.Sprintf("%s differs from the profile's file, which is a copy of it; 'lsub up -f %s' takes it over", displayPath(origin), origin))
		}
		return p, filepath.Dir(origin), nil
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	p, err := a.parseProfile(path, filepath.Dir(path), set)
	if err != nil {
		return nil, "", err
	}
	if c.Bool("dry-run") {
		return p, filepath.Dir(path), nil
	}
	if own, err := os.ReadFile(a.machine.ProfileFile()); err == nil && a.machine.ProfileOrigin() != path && len(bytes.TrimSpace(own)) > 0 && !bytes.Equal(own, data) {
		question := fmt.Sprintf("Replace %s by a copy of %s?", displayPath(a.machine.ProfileFile()), displayPath(path))
		yes, err := a.confirmUnless(c.Bool("yes"))(c.Context, question)
		if err == nil && !yes {
			err = hint.New(errors.New("nothing was changed"), "'lsub --profile NAME up -f FILE' makes a VM of its own for the file")
		}
		if err != nil {
			return nil, "", err
		}
	}
	err = a.machine.TakeProfile(path, data)
	if err == nil {
		err = a.machine.SetProfileParams(set)
	}
	return p, filepath.Dir(path), err
}

// parseProfile reads a profile's file with what it builds on.
func (a *app) parseProfile(path, dir string, set map[string]string) (*profile.Profile, error) {
	p, err := profile.LoadFrom(path, a.machine.ProfileSource(dir, set))
	var wrong *profile.Error
	if errors.As(err, &wrong) {
		err = hint.New(err, "correct the file; docs/profile.md has every key")
	}
	return p, err
}

// params reads the values of --set.
func params(texts []string) (map[string]string, error) {
	set := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, badUsage("lsub up", "--set %q is not NAME=VALUE", text)
		}
		set[name] = value
	}
	return set, nil
}

// differ tells whether a file is there and has not what the profile's has.
func (a *app) differ(file string) bool {
	theirs, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	own, err := os.ReadFile(a.machine.ProfileFile())
	return err == nil && !bytes.Equal(theirs, own)
}

// confirmUnless returns what asks questions, or says yes to all of them.
func (a *app) confirmUnless(yes bool) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, question string) (ok bool, err error) {
		switch {
		case yes:
			return true, nil
		case !a.onTerminal():
			return false, hint.New(errors.New(question), "give --yes where nobody can be asked")
		}
		a.aside(func() { ok, err = a.confirm(ctx, question) })
		return ok, err
	}
}

// upEvents prints what an Up tells.
type upEvents struct {
	app  *app
	json bool
	mu   sync.Mutex
}

func (u *upEvents) tell(e provision.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.app.aside(func() {
		if u.json {
			printJSONLine(u.app.stdout, e)
			return
		}
		if text := e.String(); text != "" {
			io.WriteString(u.app.stdout, text+"\n")
		}
	})
}
