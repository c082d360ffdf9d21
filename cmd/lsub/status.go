package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// vmStatus is what "status --json" prints.
type vmStatus struct {
	Profile   string     `json:"profile"`
	State     string     `json:"state"` // off, starting, running, paused, stopping
	Paused    string     `json:"paused,omitempty"`
	Driver    string     `json:"driver,omitempty"`
	PID       int32      `json:"pid,omitempty"`
	Socket    string     `json:"socket,omitempty"`  // of the supervisor; docs/protocol.md
	Version   string     `json:"version,omitempty"` // of the lsub that started it
	Started   *time.Time `json:"started,omitempty"`
	Kernel    string     `json:"kernel,omitempty"`
	Memory    *usageOf   `json:"memory,omitempty"`
	Disk      *usageOf   `json:"disk,omitempty"`
	Distros   int        `json:"distros"`
	Running   int        `json:"running"`
	DataDisk  string     `json:"data_disk"`
	HostBytes int64      `json:"data_disk_host_bytes"` // what the data disk takes of the host's
	Boot      []bootStep `json:"boot,omitempty"`
}

type usageOf struct {
	Total uint64 `json:"total"` // bytes
	Used  uint64 `json:"used"`
}

type bootStep struct {
	Name       string `json:"name"`
	StartNS    int64  `json:"start_ns"` // since the supervisor's start
	DurationNS int64  `json:"duration_ns"`
}

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "tell what the VM does", UsageText: "lsub status [--json]",
		Description: "It never starts the VM.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub status", "status takes no arguments")
			}
			st, err := a.vmStatus(c.Context)
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

func (a *app) vmStatus(ctx context.Context) (*vmStatus, error) {
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, err
	}
	off := &vmStatus{
		Profile: a.machine.Profile(), State: "off", Distros: len(reg.Distros),
		DataDisk: a.machine.DataDisk(), HostBytes: a.machine.DiskUsage(),
	}
	res, err := a.machine.Status(ctx)
	if errors.Is(err, machine.ErrNotRunning) {
		return off, nil
	}
	if err != nil {
		return nil, err
	}
	up := *off
	st := &up
	started := time.Unix(0, res.StartedAtNs).UTC()
	st.Driver, st.PID, st.Version, st.Started, st.Paused = res.Driver, res.Pid, res.Version, &started, res.Paused
	st.Socket = a.machine.Socket()
	for _, b := range res.Boot {
		st.Boot = append(st.Boot, bootStep{b.Name, b.StartNs, b.DurationNs})
	}
	switch {
	case res.Stopping:
		st.State = "stopping"
	case isStarting(res):
		st.State = "starting"
	case res.Paused != "":
		st.State = "paused"
	default:
		st.State = "running"
	}
	if st.State == "running" && res.Version == a.version {
		info, err := a.info(ctx, &guestv1.InfoRequest{})
		if errors.Is(err, machine.ErrNotRunning) { // it went off meanwhile
			return off, nil
		}
		if err != nil {
			return nil, err
		}
		st.addInfo(info)
	}
	return st, nil
}

// isStarting tells whether the VM's guest does not serve yet.
func isStarting(st *guestv1.StatusResponse) bool { return !st.Stopping && len(st.Boot) == 0 }

func (st *vmStatus) addInfo(info *guestv1.InfoResponse) {
	st.Kernel = info.Kernel
	st.Memory = &usageOf{info.MemoryTotal, info.MemoryTotal - min(info.MemoryAvailable, info.MemoryTotal)}
	st.Disk = &usageOf{info.DiskTotal, info.DiskUsed}
	for _, d := range info.Distros {
		if d.Running {
			st.Running++
		}
	}
}

func statusRows(st *vmStatus) [][]string {
	rows := [][]string{{"profile", st.Profile}, {"state", st.State}}
	add := func(key, value string) { rows = append(rows, []string{key, value}) }
	if st.Paused != "" {
		add("paused", st.Paused)
	}
	if st.Started != nil {
		add("started", ago(*st.Started))
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
func bootSummary(steps []bootStep) string {
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
