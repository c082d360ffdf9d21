package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
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
			o := distro.InstallOptions{Name: name, User: c.String("user"), Import: true}
			if err := a.fromFile(&o, file); err != nil {
				return err
			}
			d, err := a.install(c.Context, o)
			if err != nil {
				return err
			}
			a.status.clear()
			fmt.Fprintf(a.stdout, "%s is imported; start it with 'lsub -d %s'\n", d.Name, d.Name)
			return nil
		},
	}
}

// fromFile has o install the archive in a file, or on stdin for "-".
func (a *app) fromFile(o *distro.InstallOptions, file string) error {
	if file != "-" {
		path, err := filepath.Abs(file)
		o.Image = images.FileRef(path)
		return err
	}
	o.Archive = a.stdin
	return nil
}
