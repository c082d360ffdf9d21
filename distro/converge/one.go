package converge

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// one is a distro that is made what the file says.
type one struct {
	*up
	name string
	want profile.Distro
	has  contents

	info  distro.Info // as it was last asked for
	fresh bool        // started by this Up: nobody works in it yet
	done  int         // the changes before it
	back  bool        // it has gone back to a step that was kept
	keeps bool        // its steps are kept
}

// change is the up's, of this distro.
func (o *one) change(kind provision.Kind, name, text string, do func() error) error {
	return o.up.change(provision.Event{Distro: o.name, Kind: kind, Name: name, Text: text}, do)
}

func (o *one) converge(ctx context.Context) error {
	o.done = o.result.Changes
	there, err := o.look(ctx)
	if err != nil {
		return err
	}
	if !there {
		if err := o.install(ctx); err != nil {
			return err
		}
		if o.o.DryRun {
			o.planAll(false)
			return nil
		}
		if _, err := o.look(ctx); err != nil {
			return err
		}
	} else if up := o.info.Up; up != nil && up.Made && up.Image != o.want.Image {
		o.result.Left++
		o.tell(provision.Event{Type: provision.Note, Distro: o.name, Kind: provision.KindDistro, Text: fmt.Sprintf(
			"it was made of another image; to make it anew and lose its files: 'lsub unregister %s', then 'lsub up'", o.name)})
	}
	if err := o.settings(ctx); err != nil {
		return err
	}
	if err := o.start(ctx); err != nil {
		return err
	}
	if o.o.DryRun && o.info.State != distro.StateRunning {
		up := o.info.Up
		o.planAll(up != nil && up.Sum == o.has.sum)
		return nil
	}
	if err := o.inside(ctx); err != nil {
		return err
	}
	return o.remember(ctx)
}

// look asks for the distro, and tells whether there is one.
func (o *one) look(ctx context.Context) (bool, error) {
	infos, err := o.cfg.Service.List(ctx, distro.ListOptions{})
	if err != nil {
		return false, err
	}
	for _, i := range infos {
		if strings.EqualFold(i.Name, o.name) {
			o.info = i
			return true, nil
		}
	}
	return false, nil
}

func (o *one) install(ctx context.Context) error {
	image := o.want.Image
	if image == "" {
		image = o.name
	}
	return o.change(provision.KindDistro, "", "install "+image, func() error {
		ref, err := o.cfg.Service.Resolve(ctx, image, "")
		if err != nil {
			return hint.New(fmt.Errorf("%s: %w", o.p.At("distros."+o.name+".image"), err), hint.Of(err))
		}
		_, err = o.cfg.Service.Install(ctx, distro.InstallOptions{
			Image: ref, Name: o.name, User: o.want.User, Up: &machine.Up{Made: true, Image: o.want.Image},
		})
		return err
	})
}

// settings changes those that the registry has.
func (o *one) settings(ctx context.Context) error {
	d := &o.info.Distro
	manage := func(kind provision.Kind, text string, c distro.Changes) error {
		return o.change(kind, "", text, func() error { return o.cfg.Service.Manage(ctx, d, c) })
	}
	if user := o.want.User; user != "" && user != d.User && (user != "root" || d.User != "") {
		err := manage(provision.KindUser, user, distro.Changes{DefaultUser: &user})
		if guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER {
			err = hint.New(fmt.Errorf("%s: %w", o.p.At("distros."+o.name+".user"), err),
				fmt.Sprintf("make the account: 'lsub exec -u root %s -- useradd -m %s'; 'lsub up' makes it only when it installs the distro", o.name, user))
		}
		if err != nil {
			return err
		}
	}
	var limits distro.Changes
	var texts []string
	for _, l := range []struct {
		name       string
		want, have *int64
		to         **int64
	}{
		{"memory", o.want.Limits.Memory, &d.MemoryMax, &limits.MemoryMax},
		{"cpus", o.want.Limits.CPUs, &d.CPUMax, &limits.CPUMax},
		{"pids", o.want.Limits.PIDs, &d.PIDsMax, &limits.PIDsMax},
	} {
		if l.want != nil && *l.want != *l.have {
			*l.to = l.want
			texts = append(texts, l.name)
		}
	}
	if len(texts) > 0 {
		if err := manage(provision.KindLimits, strings.Join(texts, ", "), limits); err != nil {
			return err
		}
	}
	if idle := o.want.Idle; idle != nil && *idle != d.Idle {
		if err := manage(provision.KindIdle, idleText(*idle), distro.Changes{Idle: idle}); err != nil {
			return err
		}
	}
	if o.want.Autostart == "" {
		return nil
	}
	set, err := o.cfg.Service.Settings(ctx, d)
	if err != nil {
		return err
	}
	if when := distro.Autostart(o.want.Autostart); when != set.Autostart {
		return manage(provision.KindAutostart, string(when), distro.Changes{Autostart: &when})
	}
	return nil
}

func idleText(idle time.Duration) string {
	switch idle {
	case 0:
		return "default"
	case profile.Never:
		return "never"
	}
	return idle.String()
}

// start starts the distro where it does not run, or restarts it where its network is another.
func (o *one) start(ctx context.Context) error {
	switch o.info.State {
	case distro.StateRunning:
		if isolated := o.want.Network == profile.NetworkIsolated; isolated != (o.info.Address != "") {
			return o.restart(ctx, provision.KindNetwork, "its network changed")
		}
		return nil
	case distro.StateStopping:
		if o.o.DryRun {
			break
		}
		if err := o.cfg.Service.Stop(ctx, &o.info.Distro, distro.StopTimeout); err != nil {
			return err
		}
	}
	return o.change(provision.KindStart, "", "", func() error { return o.begin(ctx) })
}

// begin starts the distro that does not run.
func (o *one) begin(ctx context.Context) error {
	if err := o.cfg.Service.StartBare(ctx, &o.info.Distro); err != nil {
		return err
	}
	o.fresh = true
	_, err := o.look(ctx)
	return err
}

// restart restarts the distro where that is allowed, and else tells that it is needed.
func (o *one) restart(ctx context.Context, kind provision.Kind, why string) error {
	if !o.o.Restart && !o.fresh {
		o.result.Restarts++
		o.tell(provision.Event{Type: provision.Restart, Distro: o.name, Kind: kind, Text: why})
		return nil
	}
	return o.change(provision.KindRestart, "", why, func() error {
		if err := o.cfg.Service.Stop(ctx, &o.info.Distro, distro.StopTimeout); err != nil {
			return err
		}
		return o.begin(ctx)
	})
}

// planAll tells what may have to be done in a distro that does not run: where it was what the
// file says, the steps of a start.
func (o *one) planAll(same bool) {
	plan := func(kind provision.Kind, name string) {
		o.change(kind, name, "", nil)
	}
	if o.want.Systemd != nil && !same {
		plan(provision.KindSystemd, "")
	}
	if len(o.want.Packages) > 0 && !same {
		plan(provision.KindPackages, strings.Join(o.want.Packages, " "))
	}
	for _, f := range o.want.Files {
		if !same {
			plan(provision.KindFile, f.Path)
		}
	}
	for _, s := range o.want.Provision {
		if !same || s.Mode == profile.StepBoot || s.Mode == profile.StepReady {
			plan(provision.KindStep, s.Name)
		}
	}
}

// remember notes that the distro is what the file says.
func (o *one) remember(ctx context.Context) error {
	up := o.info.Up
	home := o.hasHome() || up != nil && up.Home
	if o.o.DryRun || up != nil && up.Sum == o.has.sum && up.Home == home {
		return nil
	}
	return o.cfg.Machine.Update(ctx, func(r *machine.Registry) error {
		return r.Change(o.info.ID, func(d *machine.Distro) error {
			if d.Up == nil {
				d.Up = &machine.Up{}
			}
			d.Up.Sum, d.Up.Home = o.has.sum, home
			return nil
		})
	})
}
