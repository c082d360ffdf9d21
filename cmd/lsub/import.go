package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

func (a *app) importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "make a distro of an archive",
		UsageText: "lsub import [--user USER] NAME FILE\nlsub import [--user USER] NAME - < FILE",
		Description: "FILE is what 'lsub install --from-file' takes: a root file system as a tar archive such as 'lsub export' " +
			"and 'docker export' write, plain or compressed, or a saved container image. '-' is stdin. " +
			"The distro is as it was in the archive: what an image for WSL wants to be run before the first shell, only install runs.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "make the account `USER`, and make it the default user; root for none"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return badUsage("lsub import", "import needs a name and an archive")
			}
			name, file := c.Args().Get(0), c.Args().Get(1)
			if err := machine.CheckName("distro", name); err != nil {
				return err
			}
			ref, err := fileRef(file)
			if err != nil {
				return err
			}
			d, err := a.install(c.Context, ref, installOptions{name: name, user: c.String("user"), asIs: true})
			if err != nil {
				return err
			}
			a.status.clear()
			fmt.Fprintf(a.stdout, "%s is imported; start it with 'lsub -d %s'\n", d.Name, d.Name)
			return nil
		},
	}
}

// stdinRef stands for an archive that comes on stdin, until it was read.
var stdinRef = images.Ref{Source: "stdin"}

// spool reads the archive on stdin to a file, which remove removes.
func (a *app) spool(ctx context.Context, p *progress) (ref images.Ref, remove func(), err error) {
	if term.IsTerminal(int(a.stdin.Fd())) {
		return images.Ref{}, nil, hint.New(errors.New("stdin is a terminal, not an archive"), "pipe one into it, as in 'docker export CONTAINER | lsub import NAME -'")
	}
	return images.Spool(ctx, a.paths.Cache, "stdin", a.stdin, p.step)
}
