package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "tell what the VM does", UsageText: "lsub status [--json]",
		Description: "It never starts the VM.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub status", "status takes no arguments")
			}
			st, err := a.distros.Status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(a.stdout, st)
			}
			return table(a.stdout, statusRows(st))
		},
	}
}

func statusRows(st *distro.Status) [][]string {
	rows := [][]string{{"profile", st.Profile}, {"state", st.State}}
	add := func(key, value string) { rows = append(rows, []string{key, value}) }
	if st.Paused != "" {
		add("paused", st.Paused)
	}
	if st.Started != nil {
		add("started", distro.Ago(*st.Started))
		add("supervisor", fmt.Sprintf("process %d, lsub %s, %s", st.PID, st.Version, st.Driver))
	}
	if len(st.Boot) > 0 {
		add("boot", bootSummary(st.Boot))
	}
	if st.Kernel != "" {
		add("kernel", st.Kernel)
		add("memory", size(st.Memory.Used)+" of "+size(st.Memory.Total))
		add("disk", size(st.Disk.Used)+" of "+size(st.Disk.Total))
	}
	add("distros", fmt.Sprintf("%d, %d running", st.Distros, st.Running))
	add("data disk", fmt.Sprintf("%s, %s on the host", displayPath(st.DataDisk), size(uint64(st.HostBytes))))
	return rows
}

// bootSummary tells how long the start took, and the host's steps of it; JSON
// has the guest's too.
func bootSummary(steps []distro.BootStep) string {
	var end int64
	var parts []string
	for _, b := range steps {
		if !strings.HasPrefix(b.Name, "guest: ") {
			end = max(end, b.StartNS+b.DurationNS)
			parts = append(parts, fmt.Sprintf("%s %.2f", b.Name, float64(b.DurationNS)/1e9))
		}
	}
	return fmt.Sprintf("%.2f s (%s)", float64(end)/1e9, strings.Join(parts, ", "))
}
