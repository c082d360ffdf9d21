package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
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
			d, err := a.named(rest[0])
			if err != nil {
				return err
			}
			return do(c, d, append(rest, "")[1])
		},
	}
}

func (a *app) createSnapshot(c *cli.Context, d *machine.Distro, name string) error {
	snap, err := a.distros.CreateSnapshot(c.Context, d, name)
	if err != nil {
		return err
	}
	a.status.clear()
	fmt.Fprintf(a.stdout, "%s has the snapshot %s\n", d.Name, snap.Name)
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
		rows = append(rows, []string{s.Name, distro.Ago(s.Created)})
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
		question := fmt.Sprintf("Lose what has changed in %s since %s (%s)?", d.Name, snap.Name, distro.Ago(snap.Created))
		if ok, err := a.confirm(c.Context, question); err != nil || !ok {
			a.code = 1
			return err
		}
	}
	return a.distros.RestoreSnapshot(c.Context, d, name)
}

func (a *app) deleteSnapshot(c *cli.Context, d *machine.Distro, name string) error {
	return a.distros.DeleteSnapshot(c.Context, d, name)
}
