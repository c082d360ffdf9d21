package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

func (a *app) manageCommand() *cli.Command {
	return &cli.Command{
		Name: "manage", Usage: "set what a distro may use, and when it runs",
		UsageText: "lsub manage [flags] DISTRO",
		Description: "Limits hold at once, also in a distro that runs. Without a flag it prints how the distro is set. " +
			"A distro is idle when no command runs in it, nothing of it listens on a port, and none of its services runs but those of the base system.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "set-default-user", Usage: "run commands as `USER`, an account that exists in the distro"},
			&cli.StringFlag{Name: "memory-max", Usage: "let it use `SIZE` of memory, such as 512M or 2G; none for no limit"},
			&cli.StringFlag{Name: "cpu-max", Usage: "let it use `N` CPUs, such as 1.5; none for no limit"},
			&cli.StringFlag{Name: "pids-max", Usage: "let it have `N` processes and threads; none for no limit"},
			&cli.StringFlag{Name: "idle", Usage: "stop it when it was idle for a `TIME` such as 10m; never, or default"},
			&cli.StringFlag{Name: "autostart", Usage: "start it with the VM (`WHEN` is vm), also when you log in (login), or off"},
			&cli.BoolFlag{Name: "json", Usage: "print how it is set as JSON"},
		},
		Action: func(c *cli.Context) error {
			d, err := a.oneDistro(c)
			if err != nil {
				return err
			}
			changes, err := a.changes(c)
			if err != nil {
				return err
			}
			if len(changes) == 0 {
				return a.printManaged(c.Context, d, c.Bool("json"))
			}
			if user := c.String("set-default-user"); c.IsSet("set-default-user") {
				set, err := a.setDefaultUser(c.Context, d, user)
				if err != nil {
					return err
				}
				changes = append(changes, set)
			}
			// The login's item comes first and goes last: without one, the registry says so.
			if c.String("autostart") == "login" {
				if err := a.installLogin(d); err != nil {
					return err
				}
			}
			if err := a.manage(c.Context, d.ID, changes); err != nil {
				return err
			}
			if c.IsSet("autostart") && c.String("autostart") != "login" {
				return a.removeLogin(d)
			}
			return nil
		},
	}
}

// change is a change of a distro's settings.
type change func(*machine.Distro)

// changes reads the flags of manage.
func (a *app) changes(c *cli.Context) ([]change, error) {
	var list []change
	for _, f := range []struct {
		name string
		read func(string) (change, error)
	}{
		{"set-default-user", readUser}, {"memory-max", readMemory}, {"cpu-max", readCPU}, {"pids-max", readPIDs},
		{"idle", readIdle}, {"autostart", readAutostart},
	} {
		if !c.IsSet(f.name) {
			continue
		}
		set, err := f.read(c.String(f.name))
		if err != nil {
			return nil, hint.New(usage{fmt.Errorf("--%s %s: %w", f.name, c.String(f.name), err)}, hint.Of(err))
		}
		list = append(list, set)
	}
	return list, nil
}

func readUser(text string) (change, error) {
	if text == "" {
		return nil, errors.New("is no user")
	}
	return func(*machine.Distro) {}, nil // the guest has to be asked first
}

func readMemory(text string) (change, error) {
	n, err := limit(text, parseSize)
	if err == nil && n > 0 && n < minMemoryMax {
		err = hint.New(fmt.Errorf("is too little: %s is the least", size(minMemoryMax)), "give a size with its unit, such as 512M or 2G")
	}
	return func(d *machine.Distro) { d.MemoryMax = n }, err
}

// minMemoryMax is the least that a distro's own init gets along with, in bytes.
const minMemoryMax = 16 << 20

func readCPU(text string) (change, error) {
	n, err := limit(text, func(s string) (int64, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !(f >= 0.01) || f > 1e6 {
			return 0, hint.New(errors.New("is no number of CPUs"), "give a number such as 1.5, at least 0.01")
		}
		return int64(math.Round(f * 1000)), nil
	})
	return func(d *machine.Distro) { d.CPUMax = n }, err
}

func readPIDs(text string) (change, error) {
	n, err := limit(text, func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || n < 16 {
			return 0, hint.New(errors.New("is no number of processes"), "give a number such as 4096, at least 16")
		}
		return n, nil
	})
	return func(d *machine.Distro) { d.PIDsMax = n }, err
}

// limit reads a limit; 0 is none.
func limit(text string, parse func(string) (int64, error)) (int64, error) {
	if strings.EqualFold(text, "none") {
		return 0, nil
	}
	return parse(text)
}

func readIdle(text string) (change, error) {
	var idle time.Duration
	switch strings.ToLower(text) {
	case "default":
	case "never":
		idle = profile.Never
	default:
		var err error
		if idle, err = profile.ParseIdle(text); err != nil {
			return nil, hint.New(errors.New("is no time"), "give a time such as 90s, 10m or 2h; never, or default")
		}
	}
	return func(d *machine.Distro) { d.Idle = idle }, nil
}

func readAutostart(text string) (change, error) {
	switch text {
	case "vm", "login", "off":
		return func(d *machine.Distro) { d.Autostart = text != "off" }, nil
	}
	return nil, hint.New(errors.New("is not known"), "it is vm, login or off")
}

func parseSize(text string) (int64, error) {
	n, err := profile.ParseSize(text)
	if err != nil || n == 0 {
		return 0, hint.New(errors.New("is no size"), "give a size such as 512M or 2G")
	}
	return n, nil
}

// setDefaultUser makes an account of the distro its default user.
func (a *app) setDefaultUser(ctx context.Context, d *machine.Distro, user string) (change, error) {
	ctx, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	if err := a.machine.Start(ctx); err != nil {
		return nil, err
	}
	res, err := a.client().SetDefaultUser(ctx, connect.NewRequest(&guestv1.SetDefaultUserRequest{Id: d.ID, User: user}))
	if err != nil {
		return nil, err
	}
	return func(d *machine.Distro) { d.User, d.UID = res.Msg.Name, res.Msg.Uid }, nil
}

// manage changes the settings of a distro: first where it runs, because what
// the guest refuses must not be kept.
func (a *app) manage(ctx context.Context, id string, changes []change) error {
	apply := func(d *machine.Distro) error {
		for _, set := range changes {
			set(d)
		}
		return nil
	}
	reg, err := a.machine.Registry()
	if err != nil {
		return err
	}
	var now machine.Distro
	if err := reg.Change(id, func(d *machine.Distro) error { defer func() { now = *d }(); return apply(d) }); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	_, err = a.running().ConfigureDistro(call, connect.NewRequest(&guestv1.ConfigureDistroRequest{Distro: now.Guest()}))
	if err := unlessOff(err); err != nil {
		return err
	}
	return a.changeDistro(ctx, id, apply)
}

// changeDistro changes a distro in the registry.
func (a *app) changeDistro(ctx context.Context, id string, change func(*machine.Distro) error) error {
	return a.machine.Update(ctx, func(r *machine.Registry) error { return r.Change(id, change) })
}

// unlessOff is err, but for that of a VM that is off: then there is nothing to do.
func unlessOff(err error) error {
	if errors.Is(err, machine.ErrNotRunning) {
		return nil
	}
	return err
}

// printManaged prints how a distro is set.
func (a *app) printManaged(ctx context.Context, d *machine.Distro, asJSON bool) error {
	login, err := a.hasLogin(d)
	if err != nil {
		return err
	}
	states, err := a.distroStates(ctx, &guestv1.InfoRequest{Users: true})
	if err != nil { // the rest is known without the VM
		a.note("warning", "whether the distro's own files name another default user is not known: "+err.Error())
	}
	user, from := userInForce(d, states[d.ID])
	if asJSON {
		return printJSON(a.stdout, struct {
			User string `json:"user"`
			From string `json:"user_from,omitempty"`
			settings
			Login bool `json:"autostart_login"`
		}{user, from, settingsOf(d), login})
	}
	none := func(set bool, text string) string {
		if !set {
			return "none"
		}
		return text
	}
	if from != "" && user != cmp.Or(d.User, "root") {
		user += ", by " + from
	}
	return table(a.stdout, [][]string{
		{"default user", user},
		{"memory-max", none(d.MemoryMax > 0, size(uint64(d.MemoryMax)))},
		{"cpu-max", none(d.CPUMax > 0, strconv.FormatFloat(float64(d.CPUMax)/1000, 'f', -1, 64))},
		{"pids-max", none(d.PIDsMax > 0, strconv.FormatInt(d.PIDsMax, 10))},
		{"idle", idleWords(d.Idle)},
		{"autostart", autostartWords(d, login)},
	})
}

// userInForce returns who commands run as where nobody says it, and which line of
// the distro's own files says so: "" for none, or where the VM does not run.
func userInForce(d *machine.Distro, st *guestv1.DistroState) (user, from string) {
	return cmp.Or(st.GetDefaultUser(), d.User, "root"), st.GetDefaultUserFrom()
}

func autostartWords(d *machine.Distro, login bool) string {
	switch {
	case login:
		return "login"
	case d.Autostart:
		return "vm"
	}
	return "off"
}

func idleWords(idle time.Duration) string {
	switch {
	case idle == 0:
		return "default"
	case idle < 0:
		return "never"
	}
	return idle.String()
}

// settings are a distro's as "manage --json" and "list --json" print them. A
// limit of 0 is none.
type settings struct {
	MemoryMax int64   `json:"memory_max"` // bytes
	CPUMax    float64 `json:"cpu_max"`    // CPUs
	PIDsMax   int64   `json:"pids_max"`
	Idle      string  `json:"idle"` // a duration, "never" or "default"
	Autostart bool    `json:"autostart"`
}

func settingsOf(d *machine.Distro) settings {
	return settings{
		MemoryMax: d.MemoryMax, CPUMax: float64(d.CPUMax) / 1000, PIDsMax: d.PIDsMax,
		Idle: idleWords(d.Idle), Autostart: d.Autostart,
	}
}
