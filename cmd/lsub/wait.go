package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro/converge"
	"github.com/lsub/lsub/hint"
)

func (a *app) waitCommand() *cli.Command {
	return &cli.Command{
		Name: "wait", Usage: "wait until a distro is ready, listens on a port, or has stopped",
		UsageText: "lsub wait [--for ready|stopped|port:NUMBER] [--timeout TIME] DISTRO",
		Description: "It starts nothing. A distro is ready when it runs and the probes of the profile's file succeed. " +
			"The exit status is 124 if the time is over before.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "for", Value: "ready", Usage: "wait until the distro is `WHAT`: ready, stopped, or port:8080"},
			&cli.DurationFlag{Name: "timeout", Usage: "give up after `TIME`, such as 90s"},
		},
		Action: func(c *cli.Context) error {
			what, err := converge.ParseCondition(c.String("for"))
			if err != nil {
				return hint.New(usage{fmt.Errorf("--for: %w", err)}, hint.Of(err))
			}
			d, err := a.oneDistro(c)
			if err != nil {
				return err
			}
			p, err := a.machine.LoadProfile()
			if err != nil {
				return err
			}
			return converge.Wait(c.Context, a.distros, d, p, what, c.Duration("timeout"))
		},
	}
}
