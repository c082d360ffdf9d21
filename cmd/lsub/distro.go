package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
)

// oneDistro finds the distro that the only argument names.
func (a *app) oneDistro(c *cli.Context) (*machine.Distro, error) {
	if c.NArg() != 1 {
		return nil, badUsage("lsub "+c.Command.Name, "%s needs the name of one distro", c.Command.Name)
	}
	return a.named(c.Args().First())
}

// named finds a distro; "" is the name of none.
func (a *app) named(name string) (*machine.Distro, error) {
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, err
	}
	return reg.Find(name)
}

func (a *app) startCommand() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "start a distro without running anything in it", UsageText: "lsub start DISTRO",
		Action: func(c *cli.Context) error {
			d, err := a.oneDistro(c)
			if err != nil {
				return err
			}
			return a.distros.Start(c.Context, d)
		},
	}
}

func (a *app) stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "shut a distro down; the VM and the other distros run on", UsageText: "lsub stop [--timeout DURATION] DISTRO",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: distro.StopTimeout, Usage: "kill what still runs after `DURATION`"},
		},
		Action: func(c *cli.Context) error {
			d, err := a.oneDistro(c)
			if err != nil {
				return err
			}
			grace := c.Duration("timeout")
			if grace <= 0 {
				return badUsage("lsub stop", "the timeout has to be longer than nothing")
			}
			return a.distros.Stop(c.Context, d, grace)
		},
	}
}

func (a *app) setDefaultCommand() *cli.Command {
	return &cli.Command{
		Name: "set-default", Usage: "choose the distro that is meant where none is named", UsageText: "lsub set-default DISTRO",
		Action: func(c *cli.Context) error {
			d, err := a.oneDistro(c)
			if err != nil {
				return err
			}
			return a.distros.SetDefault(c.Context, d)
		},
	}
}

func (a *app) unregisterCommand() *cli.Command {
	return &cli.Command{
		Name: "unregister", Usage: "remove a distro and all its files", UsageText: "lsub unregister [--yes] DISTRO|ID",
		Description: "Where the VM is off, the files go when it starts next. A distro that is not registered is removed by its ID, which 'lsub list -v' shows.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"},
		},
		Action: func(c *cli.Context) error {
			d, err := a.oneDistro(c)
			remove := func() error { return a.distros.Unregister(c.Context, d) }
			if err != nil {
				u, lookErr := a.unregistered(c.Args().First())
				if lookErr != nil || u == nil {
					return err
				}
				d = &machine.Distro{Name: u.ID}
				remove = func() error { return a.distros.DeleteUnregistered(c.Context, u.ID) }
			}
			if !c.Bool("yes") {
				if !a.onTerminal() {
					return hint.New(fmt.Errorf("%s would be deleted with all its files", d.Name), "give --yes where nobody can be asked")
				}
				if ok, err := a.confirm(c.Context, fmt.Sprintf("Delete %s with all its files?", d.Name)); err != nil || !ok {
					a.code = 1
					return err
				}
			}
			return remove()
		},
	}
}

// unregistered returns the distro that is not registered of an id; nil for none.
func (a *app) unregistered(id string) (*machine.Unregistered, error) {
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, err
	}
	if u := reg.FindUnregistered(id); u != nil && u.ID == id {
		return u, nil
	}
	return nil, nil
}

func (a *app) registerCommand() *cli.Command {
	return &cli.Command{
		Name: "register", Usage: "take back a distro that is not registered", UsageText: "lsub register DISTRO|ID [NAME]",
		Description: "The data disk may have distros that lsub's registry does not: it was restored from a backup, or lost. " +
			"'lsub list -v' shows them. They are kept for 30 days. With NAME, the distro is called so from now on.",
		Action: func(c *cli.Context) error {
			if c.NArg() < 1 || c.NArg() > 2 {
				return badUsage("lsub register", "register needs the name or id of one distro, and may have a new name")
			}
			d, err := a.distros.Register(c.Context, c.Args().First(), c.Args().Get(1))
			if err == nil {
				fmt.Fprintf(a.stdout, "%s is registered; start it with 'lsub -d %s'\n", d.Name, d.Name)
			}
			return err
		},
	}
}
