package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/images/catalogue"
)

func (a *app) listOnline(c *cli.Context) error {
	all, err := a.distros.Online(c.Context, distro.OnlineOptions{Refresh: c.Bool("refresh")})
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return printJSON(a.stdout, all)
	case c.Bool("quiet"):
		for _, o := range all.Images {
			fmt.Fprintln(a.stdout, o.Name)
		}
		return nil
	}
	for _, l := range all.Catalogues {
		if l.Cached && l.Error == "" && l.Asked != nil {
			a.note("note", fmt.Sprintf("%s was asked %s; --refresh asks it again", l.Host, distro.Ago(*l.Asked)))
		}
	}
	return table(a.stdout, onlineRows(all.Images, c.Bool("verbose")))
}

func onlineRows(offers []distro.OnlineImage, verbose bool) [][]string {
	rows := [][]string{{"NAME", "TITLE", "FROM"}}
	if verbose {
		rows[0] = append(rows[0], "VERSION", "SIZE", "ALSO CALLED")
	}
	for _, o := range offers {
		from := catalogue.Listing{Address: o.From}
		row := []string{o.Name, cmp.Or(o.Title, "-"), cmp.Or(from.Host(), "built in")}
		if verbose {
			bytes := "-"
			if o.Size > 0 {
				bytes = size(uint64(o.Size))
			}
			row = append(row, cmp.Or(o.Version, "-"), bytes, cmp.Or(strings.Join(o.Aliases, " "), "-"))
		}
		rows = append(rows, row)
	}
	return rows
}
