package distro

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
)

// State is whether a distro runs.
type State string

const (
	StateRunning  State = "running"
	StateStopping State = "stopping"
	StateStopped  State = "stopped"
)

// Info is a distro and what it does.
type Info struct {
	machine.Distro
	IsDefault   bool
	State       State
	DefaultUser string // who commands run as where nobody says it

	// Of a distro that runs:
	Init     string // what its process 1 is
	Address  string // in the VM's network
	Sessions int    // commands that run in it

	// Of a distro that runs, where the details were asked for:
	KeptUpBy  []string  // why it is not idle
	IdleSince time.Time // zero: it is not idle

	// Overruled are the kernel settings of a distro that runs which do not hold.
	Overruled []OverruledSetting
}

// OverruledSetting is a kernel setting that a distro makes at its start, and that has the
// value of a distro which started later: all share one kernel.
type OverruledSetting struct {
	Name    string `json:"name"`  // as in "vm.max_map_count"
	Value   string `json:"value"` // that the distro wants
	By      string `json:"by"`    // the name of the distro that decides
	ByValue string `json:"by_value"`
}

// ListOptions say what is asked of the distros.
type ListOptions struct {
	Details bool // also what takes the guest longer to find out
}

// List returns the distros, the oldest first. It never starts the VM.
func (s *Service) List(ctx context.Context, o ListOptions) (_ []Info, err error) {
	defer s.explain(ctx, &err)
	reg, err := s.machine.Registry()
	if err != nil || len(reg.Distros) == 0 {
		return nil, err
	}
	states, err := s.states(ctx, &guestv1.InfoRequest{Reasons: o.Details, Users: o.Details})
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, d := range reg.Distros {
		st := states[d.ID]
		i := Info{Distro: d, IsDefault: d.ID == reg.Default, State: StateStopped}
		i.DefaultUser, _ = defaultUser(&d, st)
		if st.GetRunning() {
			i.State, i.Init, i.Address, i.Sessions = StateRunning, st.Init, st.Address, int(st.Sessions)
			i.KeptUpBy = st.Reasons
			for _, o := range st.Overruled {
				i.Overruled = append(i.Overruled, OverruledSetting{Name: o.Name, Value: o.Value, By: o.By, ByValue: o.ByValue})
			}
			if st.IdleSinceNs != 0 && len(st.Reasons) == 0 && !st.Stopping {
				i.IdleSince = time.Unix(0, st.IdleSinceNs).UTC()
			}
			if st.Stopping {
				i.State = StateStopping
			}
		}
		infos = append(infos, i)
	}
	return infos, nil
}

// states asks a VM that runs for its distros, by their IDs. No distro runs in a VM that is
// off or not up yet: nobody waits for it here.
func (s *Service) states(ctx context.Context, req *guestv1.InfoRequest) (map[string]*guestv1.DistroState, error) {
	states := map[string]*guestv1.DistroState{}
	if st, err := s.machine.Status(ctx); err == nil && isStarting(st) {
		s.events.Note("the VM is starting, and no distro runs yet")
		return states, nil
	}
	info, err := s.info(ctx, req)
	if errors.Is(err, machine.ErrNotRunning) {
		return states, nil
	}
	if err != nil {
		return nil, err
	}
	for _, d := range info.Distros {
		states[d.Id] = d
	}
	return states, nil
}

func (s *Service) info(ctx context.Context, req *guestv1.InfoRequest) (*guestv1.InfoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	res, err := s.running().Info(ctx, connect.NewRequest(req))
	if err == nil {
		return res.Msg, nil
	}
	// A VM that goes off meanwhile breaks the call.
	st, gone := s.machine.Status(ctx)
	if errors.Is(gone, machine.ErrNotRunning) || gone == nil && st.Stopping {
		return nil, machine.ErrNotRunning
	}
	return nil, err
}

// isStarting tells whether the VM's guest does not serve yet.
func isStarting(st *supervisorv1.StatusResponse) bool { return !st.Stopping && len(st.Boot) == 0 }
