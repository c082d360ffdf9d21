package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
)

// listedPort is what "ports --json" prints of a port.
type listedPort struct {
	Kind        string    `json:"kind"`    // auto, rule, reverse, socket
	Network     string    `json:"network"` // tcp, udp, unix
	Host        []string  `json:"host"`
	Distro      string    `json:"distro,omitempty"`
	Guest       string    `json:"guest"`
	PID         int32     `json:"pid,omitempty"`
	Process     string    `json:"process,omitempty"`
	State       string    `json:"state"` // open, waiting, failed
	Reason      string    `json:"reason,omitempty"`
	Active      int64     `json:"active"`
	Connections int64     `json:"connections"`
	Failed      int64     `json:"failed"`
	ToGuest     int64     `json:"bytes_to_guest"`
	ToHost      int64     `json:"bytes_to_host"`
	Opened      time.Time `json:"opened"`
}

func (a *app) portsCommand() *cli.Command {
	return &cli.Command{
		Name: "ports", Usage: "show what is forwarded between the host and the distros", UsageText: "lsub ports [--json] [--watch]",
		Description: "A process in a distro that listens on localhost, or on every address, answers on the host's localhost too, on the same port. The profile says what else is forwarded, and what is not.\n\n" +
			"With --watch, it goes on until it is interrupted: on a terminal it shows a table that changes, elsewhere with --json a JSON value in a line whenever something has changed.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on, and show every change"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub ports", "ports takes no arguments")
			}
			return a.ports(c)
		},
	}
}

func (a *app) ports(c *cli.Context) error {
	watch, asJSON := c.Bool("watch"), c.Bool("json")
	last := ""
	err := a.machine.Ports(c.Context, watch, func(ports []*supervisorv1.Port) error {
		listed, err := a.listPorts(ports)
		if err != nil {
			return err
		}
		var b strings.Builder
		switch {
		case asJSON && watch:
			err = printJSONLine(&b, listed)
		case asJSON:
			err = printJSON(&b, listed)
		case len(listed) == 0 && !watch:
			a.note("note", "nothing is forwarded: no process of a distro listens on localhost")
		default:
			err = table(&b, portRows(listed))
		}
		if err != nil || b.String() == last {
			return err
		}
		last = b.String()
		if f, ok := a.stdout.(*os.File); ok && watch && !asJSON && term.IsTerminal(int(f.Fd())) {
			fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
		}
		_, err = fmt.Fprint(a.stdout, last)
		return err
	})
	switch {
	case !errors.Is(err, machine.ErrNotRunning):
		return err
	case asJSON:
		return printJSON(a.stdout, []listedPort{})
	}
	a.note("note", "nothing is forwarded: the VM is off")
	return nil
}

func (a *app) listPorts(ports []*supervisorv1.Port) ([]listedPort, error) {
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, d := range reg.Distros {
		names[d.ID] = d.Name
	}
	listed := []listedPort{} // JSON has [] for none
	for _, p := range ports {
		l := listedPort{
			Kind: p.Kind, Network: p.Network, Host: p.Host, Distro: p.Distro, Guest: p.Guest,
			PID: p.Pid, Process: p.Process, State: p.State, Reason: p.Reason,
			Active: p.Active, Connections: p.Connections, Failed: p.Failed,
			ToGuest: p.BytesToGuest, ToHost: p.BytesToHost, Opened: time.Unix(0, p.OpenedAtNs).UTC(),
		}
		if name, ok := names[p.Distro]; ok {
			l.Distro = name
		}
		listed = append(listed, l)
	}
	return listed, nil
}

func portRows(ports []listedPort) [][]string {
	rows := [][]string{{"HOST", "", "DISTRO", "GUEST", "PROCESS", "OPEN", "TOTAL", "TO GUEST", "TO HOST", "STATE"}}
	for _, p := range ports {
		way := "->"
		if p.Kind == "reverse" {
			way = "<-"
		}
		process := "-"
		if p.Process != "" {
			process = fmt.Sprintf("%s (%d)", p.Process, p.PID)
		}
		state := p.State
		if p.Reason != "" {
			state += ": " + p.Reason
		}
		rows = append(rows, []string{
			p.Network + " " + shortAddresses(p.Host), way, orDash(p.Distro), p.Guest, process,
			fmt.Sprint(p.Active), fmt.Sprint(p.Connections), size(uint64(p.ToGuest)), size(uint64(p.ToHost)), state,
		})
	}
	return rows
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shortAddresses writes both addresses of localhost as one name.
func shortAddresses(all []string) string {
	if len(all) == 2 {
		if port, ok := strings.CutPrefix(all[0], "127.0.0.1:"); ok && all[1] == "[::1]:"+port {
			return "localhost:" + port
		}
	}
	return strings.Join(all, ", ")
}
