package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/machine"
)

// twoNames finds the distro that the first of two arguments names, and returns
// the second.
func (a *app) twoNames(c *cli.Context) (*machine.Distro, string, error) {
	if c.NArg() != 2 {
		return nil, "", badUsage("lsub "+c.Command.Name, "%s needs a distro and a new name", c.Command.Name)
	}
	d, err := a.named(c.Args().Get(0))
	return d, c.Args().Get(1), err
}

func (a *app) cloneCommand() *cli.Command {
	return &cli.Command{
		Name: "clone", Usage: "copy a distro, at once and whatever its size", UsageText: "lsub clone [--snapshot NAME] DISTRO NEW-NAME",
		Description: "The copy takes no space until one of the two changes. A distro that runs is copied as it is at this moment. " +
			"The copy has the limits and the default user of the first, a machine id and keys (of sshd, of ssl-cert) of its own, and no snapshots.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "snapshot", Aliases: []string{"s"}, Usage: "copy the snapshot `NAME` of the distro instead"},
		},
		Action: func(c *cli.Context) error {
			from, name, err := a.twoNames(c)
			if err != nil {
				return err
			}
			d, err := a.distros.Clone(c.Context, from, distro.CloneOptions{Name: name, Snapshot: c.String("snapshot")})
			if err != nil {
				return err
			}
			a.status.clear()
			fmt.Fprintf(a.stdout, "%s is a copy of %s\n", d.Name, from.Name)
			return nil
		},
	}
}

func (a *app) renameCommand() *cli.Command {
	return &cli.Command{
		Name: "rename", Usage: "give a distro another name", UsageText: "lsub rename DISTRO NEW-NAME",
		Description: "Its host name changes when it starts next.",
		Action: func(c *cli.Context) error {
			d, name, err := a.twoNames(c)
			if err != nil {
				return err
			}
			return a.distros.Rename(c.Context, d, name)
		},
	}
}
