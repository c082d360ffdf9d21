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

// listedSnapshot is a snapshot as "snapshot list --json" prints it.
type listedSnapshot struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

func listSnapshots(d *machine.Distro) []listedSnapshot {
	list := []listedSnapshot{} // JSON has [] for none
	for _, s := range d.Snapshots {
		list = append(list, listedSnapshot{s.Name, s.ID, s.Created})
	}
	return list
}

func (a *app) snapshotCommand() *cli.Command {
	return &cli.Command{
		Name: "snapshot", Usage: "keep a distro's files as they are, and go back to them",
		UsageText: "lsub snapshot create DISTRO [NAME]\nlsub snapshot list [--json] DISTRO\nlsub snapshot restore [--yes] DISTRO NAME\nlsub snapshot delete DISTRO NAME",
		Description: "A snapshot is made at once, also of a distro that runs, and takes no space until files change. " +
			"Going back to one shuts the distro down and loses what has changed since; 'lsub clone --snapshot' loses nothing.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "restore without asking"},
			&cli.BoolFlag{Name: "json", Usage: "print the list as JSON"},
		},
		Action: func(c *cli.Context) error {
			verb, rest := c.Args().First(), c.Args().Tail()
			actions := map[string]func(*cli.Context, *machine.Distro, string) error{
				"create": a.createSnapshot, "list": a.listSnapshots, "restore": a.restoreSnapshot, "delete": a.deleteSnapshot,
			}
			do := actions[verb]
			if do == nil {
				return badUsage("lsub snapshot", "snapshot needs one of create, list, restore and delete")
			}
			wantsName := verb == "restore" || verb == "delete"
			if len(rest) < 1 || len(rest) > 2 || wantsName && len(rest) != 2 || verb == "list" && len(rest) != 1 {
				if wantsName {
					return badUsage("lsub snapshot", "snapshot %s needs a distro and the name of a snapshot", verb)
				}
				return badUsage("lsub snapshot", "snapshot %s needs the name of one distro", verb)
			}
			reg, err := a.machine.Registry()
			if err != nil {
				return err
			}
			d, err := reg.Find(rest[0])
			if err != nil {
				return err
			}
			return do(c, d, append(rest, "")[1])
		},
	}
}

func (a *app) createSnapshot(c *cli.Context, d *machine.Distro, name string) error {
	now := time.Now()
	if name == "" {
		name = now.Format("2006-01-02_15.04.05")
	}
	snap := machine.Snapshot{ID: machine.NewID(name), Name: name, Created: now.UTC().Truncate(time.Second)}
	copied := *d // whether the name is free, before anything is done
	copied.Snapshots = append([]machine.Snapshot(nil), d.Snapshots...)
	if err := copied.AddSnapshot(snap); err != nil {
		return err
	}
	if err := a.machine.Start(c.Context); err != nil {
		return err
	}
	a.status.set("taking a snapshot of " + d.Name)
	ctx, cancel := context.WithTimeout(c.Context, distroTimeout)
	defer cancel()
	ref := &guestv1.Snapshot{Distro: d.ID, Id: snap.ID}
	if _, err := a.client().CreateSnapshot(ctx, connect.NewRequest(&guestv1.CreateSnapshotRequest{Snapshot: ref})); err != nil {
		return err
	}
	err := a.changeDistro(c.Context, d.ID, func(d *machine.Distro) error { return d.AddSnapshot(snap) })
	if err != nil {
		// What the registry does not know goes at the next start of the VM.
		clean, cancel := context.WithTimeout(context.WithoutCancel(c.Context), cleanTimeout)
		defer cancel()
		a.running().DeleteSnapshot(clean, connect.NewRequest(&guestv1.DeleteSnapshotRequest{Snapshot: ref}))
		return err
	}
	a.status.clear()
	fmt.Fprintf(a.stdout, "%s has the snapshot %s\n", d.Name, name)
	return nil
}

func (a *app) listSnapshots(c *cli.Context, d *machine.Distro, _ string) error {
	if c.Bool("json") {
		return printJSON(a.stdout, listSnapshots(d))
	}
	if len(d.Snapshots) == 0 {
		a.note("note", d.Name+" has no snapshot")
		return nil
	}
	rows := [][]string{{"NAME", "CREATED"}}
	for _, s := range d.Snapshots {
		rows = append(rows, []string{s.Name, ago(s.Created)})
	}
	return table(a.stdout, rows)
}

func (a *app) restoreSnapshot(c *cli.Context, d *machine.Distro, name string) error {
	snap, err := d.FindSnapshot(name)
	if err != nil {
		return err
	}
	if !c.Bool("yes") {
		if !a.onTerminal() {
			return hint.New(fmt.Errorf("what has changed in %s since %s would be lost", d.Name, snap.Name), "give --yes where nobody can be asked")
		}
		question := fmt.Sprintf("Lose what has changed in %s since %s (%s)?", d.Name, snap.Name, ago(snap.Created))
		if ok, err := a.confirm(c.Context, question); err != nil || !ok {
			a.code = 1
			return err
		}
	}
	if err := a.machine.Start(c.Context); err != nil {
		return err
	}
	// The certificates of the profile may not have been there yet: noted before,
	// should we be cut off, and after, since who starts the distro meanwhile adds
	// them to what goes.
	noCertificates := func(d *machine.Distro) error { d.CA = ""; return nil }
	if err := a.changeDistro(c.Context, d.ID, noCertificates); err != nil {
		return err
	}
	a.status.set("restoring " + d.Name)
	ctx, cancel := context.WithTimeout(c.Context, distroTimeout+stopTimeout)
	defer cancel()
	res, err := a.client().RestoreSnapshot(ctx, connect.NewRequest(&guestv1.RestoreSnapshotRequest{
		Snapshot: &guestv1.Snapshot{Distro: d.ID, Id: snap.ID}, TimeoutNs: int64(stopTimeout),
	}))
	if err != nil {
		return err
	}
	a.warnKilled(d.Name, stopTimeout, res.Msg.Killed)
	return a.changeDistro(c.Context, d.ID, noCertificates)
}

func (a *app) deleteSnapshot(c *cli.Context, d *machine.Distro, name string) error {
	snap, err := d.FindSnapshot(name)
	if err != nil {
		return err
	}
	id := snap.ID
	// As with a distro: what is not registered goes at the next start at the latest.
	if err := a.changeDistro(c.Context, d.ID, func(d *machine.Distro) error { return d.RemoveSnapshot(id) }); err != nil {
		return err
	}
	a.status.set("deleting " + name)
	ctx, cancel := context.WithTimeout(c.Context, distroTimeout)
	defer cancel()
	_, err = a.running().DeleteSnapshot(ctx, connect.NewRequest(&guestv1.DeleteSnapshotRequest{
		Snapshot: &guestv1.Snapshot{Distro: d.ID, Id: id},
	}))
	return unlessOff(err)
}
