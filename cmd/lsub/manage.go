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

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
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
			changes, set, err := changes(c)
			if err != nil {
				return err
			}
			if !set {
				return a.printManaged(c.Context, d, c.Bool("json"))
			}
			return a.distros.Manage(c.Context, d, changes)
		},
	}
}

// changes reads the flags of manage, and tells whether there was one.
func changes(c *cli.Context) (all distro.Changes, set bool, err error) {
	for _, f := range []struct {
		name string
		read func(*distro.Changes, string) error
	}{
		{"set-default-user", readUser}, {"memory-max", readMemory}, {"cpu-max", readCPU}, {"pids-max", readPIDs},
		{"idle", readIdle}, {"autostart", readAutostart},
	} {
		if !c.IsSet(f.name) {
			continue
		}
		set = true
		if err := f.read(&all, c.String(f.name)); err != nil {
			return all, set, hint.New(usage{fmt.Errorf("--%s %s: %w", f.name, c.String(f.name), err)}, hint.Of(err))
		}
	}
	return all, set, nil
}

func readUser(c *distro.Changes, text string) error {
	if text == "" {
		return errors.New("is no user")
	}
	c.DefaultUser = &text
	return nil
}

func readMemory(c *distro.Changes, text string) error {
	n, err := limit(text, parseSize)
	if err == nil && n > 0 && n < distro.MinMemoryMax {
		err = hint.New(fmt.Errorf("is too little: %s is the least", size(distro.MinMemoryMax)), "give a size with its unit, such as 512M or 2G")
	}
	c.MemoryMax = &n
	return err
}

func readCPU(c *distro.Changes, text string) error {
	n, err := limit(text, func(s string) (int64, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !(f*1000 >= distro.MinCPUMax) || f > 1e6 {
			return 0, hint.New(errors.New("is no number of CPUs"), "give a number such as 1.5, at least 0.01")
		}
		return int64(math.Round(f * 1000)), nil
	})
	c.CPUMax = &n
	return err
}

func readPIDs(c *distro.Changes, text string) error {
	n, err := limit(text, func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || n < distro.MinPIDsMax {
			return 0, hint.New(errors.New("is no number of processes"), "give a number such as 4096, at least 16")
		}
		return n, nil
	})
	c.PIDsMax = &n
	return err
}

// limit reads a limit; 0 is none.
func limit(text string, parse func(string) (int64, error)) (int64, error) {
	if strings.EqualFold(text, "none") {
		return 0, nil
	}
	return parse(text)
}

func readIdle(c *distro.Changes, text string) error {
	var idle time.Duration
	switch strings.ToLower(text) {
	case "default":
	case "never":
		idle = profile.Never
	default:
		var err error
		if idle, err = profile.ParseIdle(text); err != nil {
			return hint.New(errors.New("is no time"), "give a time such as 90s, 10m or 2h; never, or default")
		}
	}
	c.Idle = &idle
	return nil
}

func readAutostart(c *distro.Changes, text string) error {
	when := distro.Autostart(text)
	switch when {
	case distro.AutostartVM, distro.AutostartLogin, distro.AutostartOff:
		c.Autostart = &when
		return nil
	}
	return hint.New(errors.New("is not known"), "it is vm, login or off")
}

func parseSize(text string) (int64, error) {
	n, err := profile.ParseSize(text)
	if err != nil || n == 0 {
		return 0, hint.New(errors.New("is no size"), "give a size such as 512M or 2G")
	}
	return n, nil
}

// printManaged prints how a distro is set.
func (a *app) printManaged(ctx context.Context, d *machine.Distro, asJSON bool) error {
	set, err := a.distros.Settings(ctx, d)
	if err != nil {
		return err
	}
	user, from := set.DefaultUser, set.DefaultUserFrom
	if asJSON {
		return printJSON(a.stdout, struct {
			User string `json:"user"`
			From string `json:"user_from,omitempty"`
			settings
			Login bool `json:"autostart_login"`
		}{user, from, settingsOf(d), set.Autostart == distro.AutostartLogin})
	}
	none := func(limited bool, text string) string {
		if !limited {
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
		{"autostart", string(set.Autostart)},
	})
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
