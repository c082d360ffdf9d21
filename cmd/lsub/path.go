package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func (a *app) pathCommand() *cli.Command {
	return &cli.Command{
		Name: "path", Usage: "say what a path of the host is called in distros, or the reverse", UsageText: "lsub path -g|-h PATH",
		Description: "It is about folders of the host that distros see ('lsub mount list'). In a distro, wslpath does the same.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "guest", Aliases: []string{"g"}, Usage: "print the name that distros have for PATH of the host"},
			&cli.BoolFlag{Name: "host", Usage: "or -h: print the host's name for PATH of a distro"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 || c.Bool("guest") == c.Bool("host") || c.Args().First() == "" {
				return badUsage("lsub path", "path needs -g or -h, and one path")
			}
			translate := a.distros.PathOnHost
			if c.Bool("guest") {
				translate = a.distros.PathInDistro
			}
			p, err := translate(c.Context, c.Args().First())
			if err == nil {
				fmt.Fprintln(a.stdout, p)
			}
			return err
		},
	}
}
