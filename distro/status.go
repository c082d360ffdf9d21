package distro

import (
	"context"
	"errors"
	"time"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// Status is what the VM does. Its JSON is what 'lsub status --json' prints.
type Status struct {
	Profile   string     `json:"profile"`
	State     string     `json:"state"` // off, starting, running, paused, stopping
	Paused    string     `json:"paused,omitempty"`
	Driver    string     `json:"driver,omitempty"`
	PID       int32      `json:"pid,omitempty"`
	Socket    string     `json:"socket,omitempty"`  // of the supervisor; docs/protocol.md
	Version   string     `json:"version,omitempty"` // of the lsub that started it
	Started   *time.Time `json:"started,omitempty"`
	Kernel    string     `json:"kernel,omitempty"`
	Memory    *Usage     `json:"memory,omitempty"`
	Disk      *Usage     `json:"disk,omitempty"`
	Distros   int        `json:"distros"`
	Running   int        `json:"running"`
	DataDisk  string     `json:"data_disk"`
	HostBytes int64      `json:"data_disk_host_bytes"` // what the data disk takes of the host's
	Boot      []BootStep `json:"boot,omitempty"`
}

// Usage is how much of something is used, in bytes.
type Usage struct {
	Total uint64 `json:"total"`
	Used  uint64 `json:"used"`
}

// BootStep is a step of the start of the VM. The names of the guest's begin with "guest: ".
type BootStep struct {
	Name       string `json:"name"`
	StartNS    int64  `json:"start_ns"` // since the supervisor's start
	DurationNS int64  `json:"duration_ns"`
}

// Status returns what the VM does. It never starts the VM.
func (s *Service) Status(ctx context.Context) (_ *Status, err error) {
	defer s.explain(ctx, &err)
	reg, err := s.machine.Registry()
	if err != nil {
		return nil, err
	}
	off := &Status{
		Profile: s.machine.Profile(), State: "off", Distros: len(reg.Distros),
		DataDisk: s.machine.DataDisk(), HostBytes: s.machine.DiskUsage(),
	}
	res, err := s.machine.Status(ctx)
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
	st.Socket = s.machine.Socket()
	for _, b := range res.Boot {
		st.Boot = append(st.Boot, BootStep{b.Name, b.StartNs, b.DurationNs})
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
	if st.State == "running" && res.Version == s.cfg.Version {
		info, err := s.info(ctx, &guestv1.InfoRequest{})
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

func (st *Status) addInfo(info *guestv1.InfoResponse) {
	st.Kernel = info.Kernel
	st.Memory = &Usage{info.MemoryTotal, info.MemoryTotal - min(info.MemoryAvailable, info.MemoryTotal)}
	st.Disk = &Usage{info.DiskTotal, info.DiskUsed}
	for _, d := range info.Distros {
		if d.Running {
			st.Running++
		}
	}
}
