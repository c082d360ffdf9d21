package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// listedMount is what "mount list --json" prints of a shared folder.
type listedMount struct {
	Host     string `json:"host"`
	Guest    string `json:"guest"`
	Writable bool   `json:"writable"`
	Metadata bool   `json:"metadata"`
	Source   string `json:"source"`            // default, profile, added
	Carrier  string `json:"carrier,omitempty"` // virtiofs, stream; none while the VM is off
	PID      int    `json:"pid,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (a *app) mountCommand() *cli.Command {
	return &cli.Command{
		Name: "mount", Usage: "share folders of the host with the distros", UsageText: "lsub mount add|remove|list …",
		Description: "Distros see a shared folder below /mnt/host, and at its own path where that hides nothing of theirs. " +
			"Without other settings in the profile, the home folder is shared read-only.",
		Subcommands: []*cli.Command{a.mountAddCommand(), a.mountRemoveCommand(), a.mountListCommand()},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub mount", "mount has no command %q", c.Args().First())
			}
			return badUsage("lsub mount", "mount needs a command: add, remove or list")
		},
	}
}

func (a *app) mountAddCommand() *cli.Command {
	return &cli.Command{
		Name: "add", Usage: "share a folder, at once and from now on", UsageText: "lsub mount add [--writable] [--metadata] DIR",
		Description: "A folder that is shared already gets the new settings.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "writable", Aliases: []string{"w"}, Usage: "let distros change what is in it"},
			&cli.BoolFlag{Name: "metadata", Usage: "keep owners and devices that the host cannot keep, in extended attributes"},
			&cli.StringFlag{Name: "carrier", Usage: "share it through `CARRIER`: virtiofs or stream; the default is the best there is"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return badUsage("lsub mount add", "mount add needs one folder")
			}
			carrier := c.String("carrier")
			if carrier != "" && carrier != profile.CarrierVirtioFS && carrier != profile.CarrierStream {
				return badUsage("lsub mount add", "the carrier is virtiofs or stream, not %q", carrier)
			}
			m, err := a.distros.AddMount(c.Context, machine.Share{
				Dir: c.Args().First(), Writable: c.Bool("writable"), Metadata: c.Bool("metadata"), Carrier: carrier,
			})
			if err == nil {
				fmt.Fprintf(a.stdout, "distros see %s at %s\n", displayPath(m.Dir), m.Guest)
			}
			return err
		},
	}
}

func (a *app) mountRemoveCommand() *cli.Command {
	return &cli.Command{
		Name: "remove", Usage: "share a folder no longer, also with those who use it", UsageText: "lsub mount remove DIR",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return badUsage("lsub mount remove", "mount remove needs one folder")
			}
			return a.distros.RemoveMount(c.Context, c.Args().First())
		},
	}
}

func (a *app) mountListCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "show the shared folders", UsageText: "lsub mount list [--json]",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub mount list", "mount list takes no arguments")
			}
			mounts, running, err := a.distros.Mounts(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(a.stdout, listMounts(mounts))
			}
			if len(mounts) == 0 {
				a.note("note", "no folder is shared")
				return nil
			}
			if !running {
				a.note("note", "the VM is off; this is what it will share")
			}
			return table(a.stdout, mountRows(mounts))
		},
	}
}

func listMounts(mounts []distro.Mount) []listedMount {
	listed := []listedMount{} // JSON has [] for none
	for _, m := range mounts {
		listed = append(listed, listedMount{m.Dir, m.Guest, m.Writable, m.Metadata, m.Source, m.Carrier, m.PID, m.Error})
	}
	return listed
}

func mountRows(mounts []distro.Mount) [][]string {
	rows := [][]string{{"HOST", "DISTROS", "ACCESS", "FROM", "CARRIER", "STATE"}}
	for _, m := range mounts {
		access, state := "read-only", "shared"
		if m.Writable {
			access = "writable"
		}
		if m.Metadata {
			access += ", metadata"
		}
		if m.Carrier == "" {
			state = "-"
		}
		if m.Error != "" {
			state = m.Error
		}
		rows = append(rows, []string{displayPath(m.Dir), m.Guest, access, m.Source, orDash(m.Carrier), state})
	}
	return rows
}
