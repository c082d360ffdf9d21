package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/machine"
)

func (a *app) shutdownCommand() *cli.Command {
	return &cli.Command{
		Name: "shutdown", Usage: "shut the VM down, and every distro with it", UsageText: "lsub shutdown [--force]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "cut the VM's power; what is not saved is lost"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub shutdown", "shutdown takes no arguments; 'lsub stop DISTRO' stops a single distro")
			}
			a.status.set("shutting the VM down")
			err := a.machine.Shutdown(c.Context, c.Bool("force"))
			if errors.Is(err, machine.ErrNotRunning) {
				return nil // as wanted
			}
			return err
		},
	}
}
