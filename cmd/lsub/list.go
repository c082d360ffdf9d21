package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// infoTimeout bounds questions to the guest that it answers at once.
const infoTimeout = 20 * time.Second

// listedDistro is a distro as "list --json" prints it.
type listedDistro struct {
	Name     string    `json:"name"`
	ID       string    `json:"id"`
	Default  bool      `json:"default"`
	State    string    `json:"state"` // running, stopping, stopped
	Init     string    `json:"init,omitempty"`
	Address  string    `json:"address,omitempty"`
	Sessions int32     `json:"sessions"`
	Image    string    `json:"image"`
	ImageID  string    `json:"image_id"`
	User     string    `json:"user"`
	Created  time.Time `json:"created"`

	settings
	Snapshots []listedSnapshot `json:"snapshots"`
	KeptUpBy  []string         `json:"kept_up_by"` // none: it is idle, or does not run
	IdleSince *time.Time       `json:"idle_since,omitempty"`
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
			reg, err := a.machine.Registry()
			if err != nil {
				return err
			}
			states := map[string]*guestv1.DistroState{}
			if len(reg.Distros) > 0 {
				more := c.Bool("verbose") || c.Bool("json")
				if states, err = a.distroStates(c.Context, &guestv1.InfoRequest{Reasons: more, Users: more}); err != nil {
					return err
				}
			}
			distros := listed(reg, states, c.Bool("running"))
			switch {
			case c.Bool("json"):
				return printJSON(a.stdout, distros)
			case c.Bool("quiet"):
				for _, d := range distros {
					fmt.Fprintln(a.stdout, d.Name)
				}
				return nil
			case len(reg.Distros) == 0:
				a.note("note", "no distro is installed")
				a.note("hint", "'lsub install debian' installs one")
				return nil
			}
			return table(a.stdout, listRows(distros, c.Bool("verbose")))
		},
	}
}

// distroStates asks a VM that runs for its distros. Of one that does not run, or
// not yet, no distro does: nobody waits for it here.
func (a *app) distroStates(ctx context.Context, req *guestv1.InfoRequest) (map[string]*guestv1.DistroState, error) {
	states := map[string]*guestv1.DistroState{}
	if st, err := a.machine.Status(ctx); err == nil && isStarting(st) {
		a.note("note", "the VM is starting, and no distro runs yet")
		return states, nil
	}
	info, err := a.info(ctx, req)
	if errors.Is(err, machine.ErrNotRunning) {
		return states, nil
	}
	if err != nil {
		return nil, err
	}
	for _, d := range info.Distros {
		states[d.Id] = d
	}
	return states, nil
}

func (a *app) info(ctx context.Context, req *guestv1.InfoRequest) (*guestv1.InfoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	res, err := a.running().Info(ctx, connect.NewRequest(req))
	if err == nil {
		return res.Msg, nil
	}
	// A VM that goes off meanwhile breaks the call.
	st, gone := a.machine.Status(ctx)
	if errors.Is(gone, machine.ErrNotRunning) || gone == nil && st.Stopping {
		return nil, machine.ErrNotRunning
	}
	return nil, err
}

func listed(reg *machine.Registry, states map[string]*guestv1.DistroState, running bool) []listedDistro {
	distros := []listedDistro{} // JSON has [] for none
	for _, d := range reg.Distros {
		l := listedDistro{
			Name: d.Name, ID: d.ID, Default: d.ID == reg.Default, State: "stopped",
			Image: d.ImageName, ImageID: d.Image, Created: d.Created,
			settings: settingsOf(&d), Snapshots: listSnapshots(&d), KeptUpBy: []string{},
		}
		l.User, _ = userInForce(&d, states[d.ID])
		if st := states[d.ID]; st.GetRunning() {
			l.State, l.Init, l.Address, l.Sessions = "running", st.Init, st.Address, st.Sessions
			l.KeptUpBy = append(l.KeptUpBy, st.Reasons...)
			if st.IdleSinceNs != 0 && len(st.Reasons) == 0 {
				since := time.Unix(0, st.IdleSinceNs).UTC()
				l.IdleSince = &since
			}
			if st.Stopping {
				l.State, l.IdleSince = "stopping", nil
			}
		}
		if !running || l.State != "stopped" {
			distros = append(distros, l)
		}
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
		row := []string{name, d.State, shorten(d.Image)}
		if verbose {
			init := d.Init
			if init == "" {
				init = "-"
			}
			row = append(row, d.User, init, fmt.Sprint(d.Sessions), ago(d.Created), d.ID, keptUpBy(d))
		}
		rows = append(rows, row)
	}
	return rows
}

// imageWidth is how much room a table has for an image's name, in characters.
const imageWidth = 44

// shorten leaves out the middle of an image's name that is too long for a table:
// its beginning tells where it is from, its end which one it is.
func shorten(image string) string {
	r := []rune(image)
	if len(r) <= imageWidth {
		return image
	}
	const head = imageWidth / 3
	return string(r[:head]) + "…" + string(r[len(r)-(imageWidth-head-1):])
}

// keptUpBy says what keeps a distro up, or since when it is idle.
func keptUpBy(d listedDistro) string {
	switch {
	case d.State != "running":
		return "-"
	case d.IdleSince != nil:
		return "idle, " + ago(*d.IdleSince)
	case len(d.KeptUpBy) == 0:
		return "idle"
	case len(d.KeptUpBy) > 3:
		return strings.Join(d.KeptUpBy[:3], ", ") + fmt.Sprintf(" and %d more", len(d.KeptUpBy)-3)
	}
	return strings.Join(d.KeptUpBy, ", ")
}
