package main

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
)

const (
	// distroTimeout bounds the start and the stop of a distro; the guest has
	// shorter bounds of its own, and says more.
	distroTimeout = 3 * time.Minute
	// stopTimeout is how long a distro may take to shut down before it is killed.
	stopTimeout = 30 * time.Second
	// cleanTimeout bounds what is undone after a failure.
	cleanTimeout = 15 * time.Second
)

func nearest(name string, names []string) string { return hint.Nearest(name, names) }

// oneDistro finds the distro that the only argument names.
func (a *app) oneDistro(c *cli.Context) (*machine.Distro, error) {
	if c.NArg() != 1 {
		return nil, badUsage("lsub "+c.Command.Name, "%s needs the name of one distro", c.Command.Name)
	}
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, err
	}
	return reg.Find(c.Args().First())
}

func (a *app) startCommand() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "start a distro without running anything in it", UsageText: "lsub start DISTRO",
		Action: func(c *cli.Context) error {
			d, err := a.oneDistro(c)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context, distroTimeout)
			defer cancel()
			if err := a.machine.Start(ctx); err != nil {
				return err
			}
			p, good, err := a.profileFor(ctx, d)
			if err != nil {
				return err
			}
			a.status.set("starting " + d.Name)
			res, err := a.client().StartDistro(ctx, connect.NewRequest(&guestv1.StartDistroRequest{Distro: d.Guest()}))
			if err != nil {
				return err
			}
			a.distroWarnings(d.Name, res.Msg.Warnings)
			if !good {
				return nil
			}
			return a.trustCertificates(c.Context, d, p)
		},
	}
}

func (a *app) stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "shut a distro down; the VM and the other distros run on", UsageText: "lsub stop [--timeout DURATION] DISTRO",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: stopTimeout, Usage: "kill what still runs after `DURATION`"},
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
			return a.stopDistro(c.Context, d, grace)
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
			id := d.ID
			return a.machine.Update(c.Context, func(r *machine.Registry) error {
				return r.Change(id, func(*machine.Distro) error { r.Default = id; return nil })
			})
		},
	}
}

func (a *app) unregisterCommand() *cli.Command {
	return &cli.Command{
		Name: "unregister", Usage: "remove a distro and all its files", UsageText: "lsub unregister [--yes] DISTRO",
		Description: "Where the VM is off, the files go when it starts next.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"},
		},
		Action: func(c *cli.Context) error {
			d, err := a.oneDistro(c)
			if err != nil {
				return err
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
			// What the registry does not list does not exist: should we be cut
			// off now, the next start of the VM deletes the files.
			id := d.ID
			var heir string // the new default distro
			err = a.machine.Update(c.Context, func(r *machine.Registry) error {
				wasDefault := r.Default == id
				r.Remove(id)
				if d, err := r.DefaultDistro(); err == nil && wasDefault {
					heir = d.Name
				}
				return nil
			})
			if err != nil {
				return err
			}
			if heir != "" {
				a.note("note", heir+" is the default distro now; 'lsub set-default DISTRO' chooses another")
			}
			if err := a.removeLogin(d); err != nil {
				a.note("warning", err.Error())
			}
			a.status.set("deleting " + d.Name)
			ctx, cancel := context.WithTimeout(c.Context, distroTimeout)
			defer cancel()
			return unlessOff(a.deleteFiles(ctx, id))
		},
	}
}

// deleteFiles deletes a distro on the data disk of a VM that runs.
func (a *app) deleteFiles(ctx context.Context, id string) error {
	_, err := a.running().DeleteDistro(ctx, connect.NewRequest(&guestv1.DeleteDistroRequest{Id: id}))
	return err
}
