package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/machine"
)

// listedDistro is a distro as "list --json" prints it.
type listedDistro struct {
	Name     string       `json:"name"`
	ID       string       `json:"id"`
	Default  bool         `json:"default"`
	State    distro.State `json:"state"`
	Init     string       `json:"init,omitempty"`
	Address  string       `json:"address,omitempty"`
	Sessions int          `json:"sessions"`
	Image    string       `json:"image"`
	Arch     string       `json:"arch,omitempty"` // where it is not the VM's
	ImageID  string       `json:"image_id"`
	User     string       `json:"user"`
	Created  time.Time    `json:"created"`

	settings
	Snapshots []listedSnapshot `json:"snapshots"`
	KeptUpBy  []string         `json:"kept_up_by"` // none: it is idle, or does not run
	IdleSince *time.Time       `json:"idle_since,omitempty"`

	Overruled []distro.OverruledSetting `json:"overruled"`
}

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the distros", UsageText: "lsub list [--running | --online] [-q | -v | --json]",
		Description: "A star marks the default distro. With --online, it lists the images that 'lsub install' knows by name; " +
			"catalogues that were asked in the last hour are not asked again, unless with --refresh.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "running", Usage: "only those that run"},
			&cli.BoolFlag{Name: "online", Aliases: []string{"o"}, Usage: "the images that can be installed instead"},
			&cli.BoolFlag{Name: "refresh", Usage: "ask the catalogues of images again"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print the names alone"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print more of each"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "wsl", Hidden: true}, // the columns of 'wsl --list --verbose'
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub list", "list takes no arguments")
			}
			switch {
			case c.Bool("online") && c.Bool("running"):
				return badUsage("lsub list", "images do not run: --online and --running exclude each other")
			case c.Bool("online"):
				return a.listOnline(c)
			case c.Bool("refresh"):
				return badUsage("lsub list", "--refresh is for --online")
			}
			infos, err := a.distros.List(c.Context, distro.ListOptions{Details: c.Bool("verbose") || c.Bool("json")})
			if err != nil {
				return err
			}
			distros := listed(infos, c.Bool("running"))
			reg, err := a.machine.Registry()
			if err != nil {
				return err
			}
			aside := reg.Unregistered
			if c.Bool("running") {
				aside = nil
			}
			switch {
			case c.Bool("json"):
				return printJSON(a.stdout, distros)
			case c.Bool("quiet"):
				for _, d := range distros {
					fmt.Fprintln(a.stdout, d.Name)
				}
				return nil
			case len(aside) > 0 && !c.Bool("verbose"):
				a.note("note", aside[0].Name()+others(len(aside)-1)+" on the data disk is not registered; 'lsub list -v' shows it")
			}
			switch {
			case len(infos) == 0 && len(aside) == 0:
				a.note("note", "no distro is installed")
				a.note("hint", "'lsub install debian' installs one")
				return nil
			}
			if c.Bool("wsl") {
				return table(a.stdout, wslRows(distros))
			}
			rows := listRows(distros, c.Bool("verbose"))
			if c.Bool("verbose") {
				rows = append(rows, unregisteredRows(aside)...)
				a.tellOverruled(distros)
			}
			return table(a.stdout, rows)
		},
	}
}

func listed(infos []distro.Info, running bool) []listedDistro {
	distros := []listedDistro{} // JSON has [] for none
	for _, i := range infos {
		if running && i.State == distro.StateStopped {
			continue
		}
		l := listedDistro{
			Name: i.Name, ID: i.ID, Default: i.IsDefault, State: i.State, Init: i.Init, Address: i.Address, Sessions: i.Sessions,
			Image: i.ImageName, Arch: i.Arch, ImageID: i.Image, User: i.DefaultUser, Created: i.Created,
			settings: settingsOf(&i.Distro), Snapshots: listSnapshots(&i.Distro), KeptUpBy: append([]string{}, i.KeptUpBy...),
			Overruled: append([]distro.OverruledSetting{}, i.Overruled...),
		}
		if !i.IdleSince.IsZero() {
			l.IdleSince = &i.IdleSince
		}
		distros = append(distros, l)
	}
	return distros
}

func listRows(distros []listedDistro, verbose bool) [][]string {
	rows := [][]string{{"NAME", "STATE", "IMAGE"}}
	if verbose {
		rows[0] = append(rows[0], "USER", "INIT", "SESSIONS", "CREATED", "ID", "KEPT UP BY")
	}
	for _, d := range distros {
		name := d.Name
		if d.Default {
			name += " *"
		}
		row := []string{name, string(d.State), shorten(d.Image)}
		if verbose {
			row = append(row, d.User, cmp.Or(d.Init, "-"), fmt.Sprint(d.Sessions), distro.Ago(d.Created), d.ID, keptUpBy(d))
		}
		rows = append(rows, row)
	}
	return rows
}

// others says that there are n more.
func others(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// unregisteredRows are those of the distros that are on the data disk only, with the columns
// of listRows.
func unregisteredRows(aside []machine.Unregistered) (rows [][]string) {
	for _, u := range aside {
		image, created := "-", "-"
		if d := u.Distro; d != nil {
			image, created = shorten(d.ImageName), distro.Ago(d.Created)
		}
		until := u.Found.Add(machine.UnregisteredAge)
		rows = append(rows, []string{u.Name(), "unregistered", image, "-", "-", "0", created, u.ID,
			"kept until " + until.Local().Format(time.DateOnly) + "; 'lsub register " + u.ID + "' takes it back"})
	}
	return rows
}

// tellOverruled says which kernel settings of distros do not hold, and who has changed them.
func (a *app) tellOverruled(distros []listedDistro) {
	for _, d := range distros {
		for _, o := range d.Overruled {
			a.note("note", fmt.Sprintf("%s wants %s = %s, but %s started later and has set it to %s; all distros share this setting",
				d.Name, o.Name, o.Value, o.By, o.ByValue))
		}
	}
}

// wslRows are the rows of 'wsl --list --verbose', for scripts that read them.
func wslRows(distros []listedDistro) [][]string {
	rows := [][]string{{"  NAME", "STATE", "VERSION"}}
	for _, d := range distros {
		mark, state := "  ", "Stopped"
		if d.Default {
			mark = "* "
		}
		if d.State != distro.StateStopped {
			state = "Running"
		}
		rows = append(rows, []string{mark + d.Name, state, "2"})
	}
	return rows
}

// imageWidth is how much room a table has for an image's name, in characters.
const imageWidth = 44

// shorten shortens an image's name that is too long for a table. Of a list of packages, it
// keeps the first and tells how many follow. Else it leaves out the middle: the beginning
// tells where an image is from, the end which one it is.
func shorten(image string) string {
	r := []rune(image)
	if len(r) <= imageWidth {
		return image
	}
	if suite, packages, ok := strings.Cut(image, "?include="); ok && !strings.Contains(packages, "&") {
		all := strings.Split(packages, ",")
		for n := len(all) - 1; n > 0; n-- {
			text := fmt.Sprintf("%s with %s +%d", suite, strings.Join(all[:n], ", "), len(all)-n)
			if utf8.RuneCountInString(text) <= imageWidth {
				return text
			}
		}
		return fmt.Sprintf("%s with %d packages", suite, len(all))
	}
	const head = imageWidth / 3
	return string(r[:head]) + "…" + string(r[len(r)-(imageWidth-head-1):])
}

// keptUpBy says what keeps a distro up, or since when it is idle.
func keptUpBy(d listedDistro) string {
	switch {
	case d.State != distro.StateRunning:
		return "-"
	case d.IdleSince != nil:
		return "idle, " + distro.Ago(*d.IdleSince)
	case len(d.KeptUpBy) == 0:
		return "idle"
	case len(d.KeptUpBy) > 3:
		return strings.Join(d.KeptUpBy[:3], ", ") + fmt.Sprintf(" and %d more", len(d.KeptUpBy)-3)
	}
	return strings.Join(d.KeptUpBy, ", ")
}
