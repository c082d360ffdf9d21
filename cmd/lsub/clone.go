package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// twoNames finds the distro that the first of two arguments names, and returns
// the second.
func (a *app) twoNames(c *cli.Context) (*machine.Distro, string, error) {
	if c.NArg() != 2 {
		return nil, "", badUsage("lsub "+c.Command.Name, "%s needs a distro and a new name", c.Command.Name)
	}
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, "", err
	}
	d, err := reg.Find(c.Args().Get(0))
	return d, c.Args().Get(1), err
}

func (a *app) cloneCommand() *cli.Command {
	return &cli.Command{
		Name: "clone", Usage: "copy a distro, at once and whatever its size", UsageText: "lsub clone [--snapshot NAME] DISTRO NEW-NAME",
		Description: "The copy takes no space until one of the two changes. A distro that runs is copied as it is at this moment. " +
			"The copy has the limits and the default user of the first, a machine id of its own, and no snapshots.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "snapshot", Aliases: []string{"s"}, Usage: "copy the snapshot `NAME` of the distro instead"},
		},
		Action: func(c *cli.Context) error {
			from, name, err := a.twoNames(c)
			if err != nil {
				return err
			}
			reg, err := a.machine.Registry()
			if err != nil {
				return err
			}
			if err := reg.Available(name); err != nil {
				return err
			}
			req := &guestv1.CreateDistroRequest{From: &guestv1.CreateDistroRequest_Clone{Clone: from.ID}}
			if s := c.String("snapshot"); s != "" {
				snap, err := from.FindSnapshot(s)
				if err != nil {
					return err
				}
				req.From = &guestv1.CreateDistroRequest_Snapshot{Snapshot: &guestv1.Snapshot{Distro: from.ID, Id: snap.ID}}
			}
			d := *from
			d.ID, d.Name, d.Created = machine.NewID(name), name, time.Now().UTC().Truncate(time.Second)
			d.Snapshots, d.Autostart = nil, false
			if err := a.machine.Start(c.Context); err != nil {
				return err
			}
			a.status.set("copying " + from.Name)
			if err := a.create(c.Context, d, req); err != nil {
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
			if err := a.machine.Update(c.Context, func(r *machine.Registry) error { return r.Rename(d.ID, name) }); err != nil {
				return err
			}
			login, err := a.hasLogin(d)
			if err != nil || !login {
				return err
			}
			renamed := *d
			renamed.Name = name
			return a.installLogin(&renamed)
		},
	}
}

// running is a client of a VM that runs already.
func (a *app) running() *guest.Client {
	return guest.NewClient(a.machine.Running(), a.version)
}

// stopDistro shuts a distro down where it runs.
func (a *app) stopDistro(ctx context.Context, d *machine.Distro, grace time.Duration) error {
	a.status.set("stopping " + d.Name)
	defer a.status.clear()
	ctx, cancel := context.WithTimeout(ctx, distroTimeout+grace)
	defer cancel()
	res, err := a.running().StopDistro(ctx, connect.NewRequest(&guestv1.StopDistroRequest{Id: d.ID, TimeoutNs: int64(grace)}))
	switch {
	case errors.Is(err, machine.ErrNotRunning):
		return nil // and so the distro does not either
	case err != nil:
		return err
	}
	a.warnKilled(d.Name, grace, res.Msg.Killed)
	return nil
}

// warnKilled says that a distro had to be killed, where it had.
func (a *app) warnKilled(name string, grace time.Duration, killed bool) {
	if killed {
		a.note("warning", fmt.Sprintf("%s did not shut down within %v and was killed", name, grace))
	}
}
