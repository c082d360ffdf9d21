package distro

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// The least that a distro's own init gets along with.
const (
	MinMemoryMax = profile.MinMemoryMax // bytes
	MinCPUMax    = profile.MinCPUMax    // thousandths of a CPU
	MinPIDsMax   = profile.MinPIDsMax
)

// Autostart is when a distro starts by itself.
type Autostart string

const (
	AutostartOff   Autostart = "off"
	AutostartVM    Autostart = "vm"    // with the VM
	AutostartLogin Autostart = "login" // with the VM, and when the user logs in
)

// Changes are changes of a distro's settings. What is nil stays as it is.
type Changes struct {
	DefaultUser *string // an account that exists in the distro: a name or a number

	MemoryMax *int64 // bytes; 0 is no limit
	CPUMax    *int64 // thousandths of a CPU; 0 is no limit
	PIDsMax   *int64 // processes and threads; 0 is no limit

	Idle      *time.Duration // after which it is stopped; 0 is the default, below 0 never
	Autostart *Autostart
}

// Manage changes a distro's settings. Limits are in force at once, also in a distro that
// runs. A change of the default user starts the VM. When it is interrupted, the distro
// that runs may have settings that the registry does not; they end with it.
func (s *Service) Manage(ctx context.Context, d *machine.Distro, c Changes) (err error) {
	defer s.explain(ctx, &err)
	if err := c.check(); err != nil {
		return err
	}
	set := c.apply
	if c.DefaultUser != nil {
		user, uid, err := s.setDefaultUser(ctx, d, *c.DefaultUser)
		if err != nil {
			return err
		}
		set = func(d *machine.Distro) error { d.User, d.UID = user, uid; return c.apply(d) }
	}
	// The login's item comes first and goes last: without one, the registry says so.
	if c.Autostart != nil && *c.Autostart == AutostartLogin {
		if err := s.startAtLogin(d); err != nil {
			return err
		}
	}
	if err := s.configure(ctx, d.ID, set); err != nil {
		return err
	}
	if c.Autostart != nil && *c.Autostart != AutostartLogin {
		return s.notAtLogin(d)
	}
	return nil
}

func (c *Changes) check() error {
	for _, limit := range []struct {
		name  string
		value *int64
		least int64
	}{{"memory", c.MemoryMax, MinMemoryMax}, {"CPU", c.CPUMax, MinCPUMax}, {"process", c.PIDsMax, MinPIDsMax}} {
		if v := limit.value; v != nil && *v != 0 && *v < limit.least {
			return fmt.Errorf("a %s limit of %d is too little: %d is the least", limit.name, *v, limit.least)
		}
	}
	return nil
}

// apply changes a distro of the registry; the default user is another matter.
func (c *Changes) apply(d *machine.Distro) error {
	for _, limit := range []struct{ from, to *int64 }{
		{c.MemoryMax, &d.MemoryMax}, {c.CPUMax, &d.CPUMax}, {c.PIDsMax, &d.PIDsMax},
	} {
		if limit.from != nil {
			*limit.to = *limit.from
		}
	}
	if c.Idle != nil {
		d.Idle = *c.Idle
	}
	if c.Autostart != nil {
		d.Autostart = *c.Autostart != AutostartOff
	}
	return nil
}

// setDefaultUser has the guest make an account the default user of a distro.
func (s *Service) setDefaultUser(ctx context.Context, d *machine.Distro, user string) (name string, uid uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	if err := s.machine.Start(ctx); err != nil {
		return "", 0, err
	}
	res, err := s.client().SetDefaultUser(ctx, connect.NewRequest(&guestv1.SetDefaultUserRequest{Id: d.ID, User: user}))
	if err != nil {
		return "", 0, err
	}
	return res.Msg.Name, res.Msg.Uid, nil
}

// configure changes a distro: first in the guest where it runs, because the registry must
// not keep what the guest refuses.
func (s *Service) configure(ctx context.Context, id string, set func(*machine.Distro) error) error {
	reg, err := s.machine.Registry()
	if err != nil {
		return err
	}
	var wanted machine.Distro
	if err := reg.Change(id, func(d *machine.Distro) error { defer func() { wanted = *d }(); return set(d) }); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	_, err = s.running().ConfigureDistro(call, connect.NewRequest(&guestv1.ConfigureDistroRequest{Distro: wanted.Guest()}))
	if err := unlessOff(err); err != nil {
		return err
	}
	return s.change(ctx, id, set)
}

// Settings are those of a distro's settings that its registry entry does not have.
type Settings struct {
	DefaultUser     string // in force: who commands run as where nobody says it
	DefaultUserFrom string // the line of the distro's own files that says so; "" where none does, or the VM is off
	Autostart       Autostart
}

// Settings returns how a distro is set. It never starts the VM.
func (s *Service) Settings(ctx context.Context, d *machine.Distro) (set Settings, err error) {
	defer s.explain(ctx, &err)
	login, err := s.startsAtLogin(d)
	if err != nil {
		return set, err
	}
	states, err := s.states(ctx, &guestv1.InfoRequest{Users: true})
	if err != nil { // the rest is known without the VM
		s.events.Warn("whether the distro's own files name another default user is not known: " + err.Error())
	}
	set.DefaultUser, set.DefaultUserFrom = defaultUser(d, states[d.ID])
	set.Autostart = AutostartOff
	switch {
	case login:
		set.Autostart = AutostartLogin
	case d.Autostart:
		set.Autostart = AutostartVM
	}
	return set, nil
}

// defaultUser returns who commands run as where nobody says it, and which line of the
// distro's own files says so.
func defaultUser(d *machine.Distro, st *guestv1.DistroState) (user, from string) {
	return cmp.Or(st.GetDefaultUser(), d.User, "root"), st.GetDefaultUserFrom()
}
