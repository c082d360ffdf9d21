package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// manCommand prints the manual page, which releases contain.
func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print the manual page, lsub(1), in troff", Hidden: true,
		Action: func(c *cli.Context) error {
			page, err := c.App.ToManWithSection(1)
			if err != nil {
				return err
			}
			fmt.Fprint(c.App.Writer, page)
			return nil
		},
	}
}
