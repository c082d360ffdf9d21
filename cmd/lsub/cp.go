package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/hint"
)

func (a *app) cpCommand() *cli.Command {
	return &cli.Command{
		Name: "cp", Usage: "copy files between the host and a distro", UsageText: "lsub cp [--resume] [-u USER] SOURCE… DESTINATION",
		Description: "DISTRO:PATH is in a distro (:PATH in the default one), every other path on the host. A path in a distro " +
			"that does not begin with a slash is below the home folder. '-' is stdin or stdout: one file. Folders are copied with " +
			"all that is in them; SOURCE/. is what is in SOURCE. Permissions, times, links and holes are kept. A file gets its name " +
			"when it is whole, and so does a new folder.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "resume", Usage: "go on with a copy that broke off, and leave out what is there already"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "in the distro as `USER` instead of its default user"},
			&cli.BoolFlag{Name: "recursive", Aliases: []string{"r", "R", "a"}, Hidden: true}, // as cp has it; folders need no flag here
		},
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) < 2 {
				return badUsage("lsub cp", "cp needs a source and a destination")
			}
			o := distro.CopyOptions{User: c.String("user"), Resume: c.Bool("resume")}
			if err := a.places(args, &o); err != nil {
				return err
			}
			p := a.newProgress()
			defer p.end()
			return a.distros.Copy(c.Context, o)
		},
	}
}

// places reads the sources and the destination of a copy.
func (a *app) places(args []string, o *distro.CopyOptions) error {
	from, to := args[:len(args)-1], args[len(args)-1]
	for _, arg := range from {
		if arg == "-" {
			if len(from) > 1 {
				return badUsage("lsub cp", "'-' is the only source")
			}
			o.Stdin = a.stdin
			continue
		}
		p, err := a.place(arg)
		if err != nil {
			return err
		}
		if len(o.From) > 0 && p.Distro != o.From[0].Distro && (p.Distro == nil || o.From[0].Distro == nil || p.Distro.ID != o.From[0].Distro.ID) {
			return badUsage("lsub cp", "the sources are not all in one place")
		}
		o.From = append(o.From, p)
	}
	var err error
	if to == "-" {
		o.Stdout = a.stdout
	} else if o.To, err = a.place(to); err != nil {
		return err
	}
	inDistro := o.To.Distro != nil || len(o.From) > 0 && o.From[0].Distro != nil
	switch {
	case !inDistro:
		return hint.New(errors.New("neither the source nor the destination is in a distro"), "name one as DISTRO:PATH; 'cp' copies on the host")
	case o.Stdin != nil && o.To.Distro == nil, o.Stdout != nil && len(o.From) != 1:
		return badUsage("lsub cp", "stdin goes to one file of a distro, and one file of a distro to stdout")
	case o.Resume && (o.Stdin != nil || o.Stdout != nil):
		return badUsage("lsub cp", "a copy of stdin or to stdout cannot go on where one broke off")
	}
	return nil
}

// place reads DISTRO:PATH, or a path of the host.
func (a *app) place(arg string) (distro.CopyPlace, error) {
	name, path, ok := strings.Cut(arg, ":")
	if !ok || strings.ContainsAny(name, `/\`) || isDrive(arg) {
		if arg == "" {
			return distro.CopyPlace{}, badUsage("lsub cp", "a path is empty")
		}
		return distro.CopyPlace{Path: arg}, nil
	}
	d, err := a.distros.Find(name)
	if err != nil {
		if name != "" {
			err = hint.New(err, hint.Of(err)+fmt.Sprintf("; a file of the host is ./%s", arg))
		}
		return distro.CopyPlace{}, err
	}
	return distro.CopyPlace{Distro: d, Path: path}, nil
}

// isDrive tells whether a path begins with a drive of Windows.
func isDrive(path string) bool { return runtime.GOOS == "windows" && filepath.VolumeName(path) != "" }
