package distro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/profile"
)

// Find returns the distro of a name, in any case; "" is the default distro.
func (s *Service) Find(name string) (*machine.Distro, error) {
	reg, err := s.machine.Registry()
	if err != nil {
		return nil, err
	}
	if name == "" {
		return reg.DefaultDistro()
	}
	return reg.Find(name)
}

// Start starts a distro, and the VM before it where that is off. A distro that runs
// already stays as it is.
func (s *Service) Start(ctx context.Context, d *machine.Distro) (err error) {
	defer s.explain(ctx, &err)
	env, err := s.profileEnv(ctx, d)
	if err != nil {
		return err
	}
	return s.start(ctx, d.ID, machine.StartOptions{Env: env})
}

// StartBare is Start without the profile's steps of a start; see [Service.StartSteps].
func (s *Service) StartBare(ctx context.Context, d *machine.Distro) (err error) {
	defer s.explain(ctx, &err)
	env, err := s.profileEnv(ctx, d)
	if err != nil {
		return err
	}
	return s.start(ctx, d.ID, machine.StartOptions{Env: env, Steps: "none"})
}

// StartSteps runs those of the profile's steps of a start, "boot" or "ready", that have not
// been run since the distro has started. It starts the distro where it does not run. One that
// fails is a [*provision.StepError].
func (s *Service) StartSteps(ctx context.Context, d *machine.Distro, mode string, tell func(provision.Event)) (err error) {
	defer s.explain(ctx, &err)
	env, err := s.profileEnv(ctx, d)
	if err != nil {
		return err
	}
	var failed *provision.StepError
	err = s.start(ctx, d.ID, machine.StartOptions{Env: env, Steps: mode, Step: func(m *supervisorv1.Step) {
		if m.Event == string(provision.Failed) {
			failed = &provision.StepError{Distro: d.Name, Kind: provision.KindStep, Name: m.Name, At: m.At,
				Status: int(m.Status), After: time.Duration(m.AfterNs), Last: m.Last}
			return
		}
		tell(provision.Event{V: provision.Version, Time: time.Now().UTC(), Type: provision.Type(m.Event),
			Distro: d.Name, Kind: provision.KindStep, Name: m.Name, Text: m.Output})
	}})
	if err == nil && failed != nil {
		return failed
	}
	return err
}

// start has the supervisor start a distro.
func (s *Service) start(ctx context.Context, id string, o machine.StartOptions) error {
	defer s.done()
	o.Warn = s.events.Warn
	o.Stage = func(stage string) {
		if o.Step == nil { // else the steps tell more
			s.events.Progress(Step{Text: stage})
		}
	}
	return s.machine.StartDistro(ctx, id, o)
}

// profileEnv returns the environment that a distro's commands and services get from the profile. A
// profile that has become bad keeps nobody out of a VM that runs: then there is a warning.
func (s *Service) profileEnv(ctx context.Context, d *machine.Distro) ([]string, error) {
	p, err := s.machine.LoadProfile()
	if err != nil {
		if _, off := s.machine.Status(ctx); off != nil {
			return nil, err
		}
		s.events.Warn(strings.ReplaceAll(err.Error(), "\n", "\n  "))
		p = profile.Default()
	}
	return append(p.Network.ProxyEnv(s.cfg.Getenv), p.Distro(d.Name).Environment...), nil
}

// Stop shuts a distro down, and kills what still runs after grace, which it then warns
// of. A distro that does not run is no error. When ctx ends, the shutdown goes on.
func (s *Service) Stop(ctx context.Context, d *machine.Distro, grace time.Duration) (err error) {
	defer s.explain(ctx, &err)
	defer s.step("stopping " + d.Name)()
	ctx, cancel := context.WithTimeout(ctx, distroTimeout+grace)
	defer cancel()
	res, err := s.running().StopDistro(ctx, connect.NewRequest(&guestv1.StopDistroRequest{Id: d.ID, TimeoutNs: int64(grace)}))
	switch {
	case errors.Is(err, machine.ErrNotRunning):
		return nil // and so the distro does not either
	case err != nil:
		return err
	}
	s.warnKilled(d.Name, grace, res.Msg.Killed)
	return nil
}

// warnKilled warns of a distro that had to be killed.
func (s *Service) warnKilled(name string, grace time.Duration, killed bool) {
	if killed {
		s.events.Warn(fmt.Sprintf("%s did not shut down within %v and was killed", name, grace))
	}
}

// SetDefault makes a distro the default one.
func (s *Service) SetDefault(ctx context.Context, d *machine.Distro) error {
	return s.machine.Update(ctx, func(r *machine.Registry) error {
		return r.Change(d.ID, func(*machine.Distro) error { r.Default = d.ID; return nil })
	})
}

// Rename gives a distro another name. Its host name changes when it starts next.
func (s *Service) Rename(ctx context.Context, d *machine.Distro, name string) error {
	if err := s.machine.Update(ctx, func(r *machine.Registry) error { return r.Rename(d.ID, name) }); err != nil {
		return err
	}
	login, err := s.startsAtLogin(d)
	if err != nil || !login {
		return err
	}
	renamed := *d
	renamed.Name = name
	return s.startAtLogin(&renamed)
}

// Unregister removes a distro with all its files and snapshots. Where the VM is off or ctx
// ends meanwhile, the files go when the VM starts next.
func (s *Service) Unregister(ctx context.Context, d *machine.Distro) (err error) {
	defer s.explain(ctx, &err)
	var heir string // the new default distro
	err = s.machine.Update(ctx, func(r *machine.Registry) error {
		wasDefault := r.Default == d.ID
		r.Remove(d.ID)
		if d, err := r.DefaultDistro(); err == nil && wasDefault {
			heir = d.Name
		}
		return nil
	})
	if err != nil {
		return err
	}
	if heir != "" {
		s.events.Note(heir + " is the default distro now; 'lsub set-default DISTRO' chooses another")
	}
	if err := s.notAtLogin(d); err != nil {
		s.events.Warn(err.Error())
	}
	defer s.step("deleting " + d.Name)()
	ctx, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	return unlessOff(s.deleteFiles(ctx, d.ID))
}

// DeleteUnregistered deletes a distro that is on the data disk and not registered. Where the
// VM is off, its files go when it starts next.
func (s *Service) DeleteUnregistered(ctx context.Context, id string) (err error) {
	defer s.explain(ctx, &err)
	if err := s.machine.Update(ctx, func(r *machine.Registry) error { r.SetRemoved(id); return nil }); err != nil {
		return err
	}
	defer s.step("deleting " + id)()
	ctx, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	return unlessOff(s.deleteFiles(ctx, id))
}

// Register registers a distro that is on the data disk and not in the registry, of an id or
// of a name that only one of them has. It is called name, or with "" as it was before; its
// settings and snapshots are those that it had when it started last.
func (s *Service) Register(ctx context.Context, idOrName, name string) (_ *machine.Distro, err error) {
	defer s.explain(ctx, &err)
	if err := s.machine.Start(ctx); err != nil { // which looks what is on the disk
		return nil, err
	}
	info, err := s.info(ctx, &guestv1.InfoRequest{Records: true})
	if err != nil {
		return nil, err
	}
	var d machine.Distro
	err = s.machine.Update(ctx, func(r *machine.Registry) error {
		u := r.FindUnregistered(idOrName)
		if u == nil {
			return hint.New(fmt.Errorf("no distro on the data disk is called %q that is not registered", idOrName),
				"'lsub list -v' shows those there are; give the id where two have one name")
		}
		i := slices.IndexFunc(info.Distros, func(st *guestv1.DistroState) bool { return st.Id == u.ID })
		if i < 0 {
			return fmt.Errorf("the data disk has no files of %s any more", u.ID)
		}
		d = machine.Distro{Created: now()}
		if u.Distro != nil {
			d = *u.Distro
		}
		d.ID, d.Name = u.ID, cmp.Or(name, u.Name())
		known := d.Snapshots
		d.Snapshots = nil
		for _, id := range info.Distros[i].Snapshots {
			k := slices.IndexFunc(known, func(snap machine.Snapshot) bool { return snap.ID == id })
			if k >= 0 {
				d.Snapshots = append(d.Snapshots, known[k])
			} else {
				d.AdoptSnapshot(id)
			}
		}
		return r.Add(d)
	})
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// deleteFiles deletes a distro on the data disk of a VM that runs.
func (s *Service) deleteFiles(ctx context.Context, id string) error {
	_, err := s.running().DeleteDistro(ctx, connect.NewRequest(&guestv1.DeleteDistroRequest{Id: id}))
	return err
}
