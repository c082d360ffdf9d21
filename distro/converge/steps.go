package converge

import (
	"context"
	"net"
	"regexp"
	"slices"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// isMark is what marks are called: they are words of scripts.
var isMark = regexp.MustCompile(`^(step|boot|ready|file)-[0-9a-f]{40}$|^package-[A-Za-z0-9@][A-Za-z0-9+._:@-]{0,127}$`)

func packageMark(name string) string { return "package-" + name }
func fileMark(path string) string    { return "file-" + provision.SumOf([]byte(path))[:40] }

// target is a distro as the service runs commands in it.
type target struct {
	s *distro.Service
	d *machine.Distro
}

func (t target) Exec(ctx context.Context, c provision.Command) (guest.Exit, error) {
	return t.s.Exec(ctx, t.d, distro.Command{
		Argv: c.Argv, LoginShell: c.Login, User: c.User, Env: c.Env, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Signals: c.Signals,
	})
}

func (t target) Connect(ctx context.Context, port int) (net.Conn, error) {
	return t.s.Connect(ctx, t.d, port)
}

// runner runs tasks in the distro.
func (o *one) runner() provision.Runner {
	return provision.Runner{Target: target{o.cfg.Service, &o.info.Distro}, Distro: o.name, Tell: o.tell}
}

// steps runs those of some modes that have not been run.
func (o *one) steps(ctx context.Context, root, home *state, modes ...profile.StepMode) error {
	for i, s := range o.want.Provision {
		if !slices.Contains(modes, s.Mode) {
			continue
		}
		known := root
		if s.Mode == profile.StepUser {
			known = home
		}
		mark := o.has.marks[i]
		if _, done := known.marks[mark]; done && mark != "" {
			continue
		}
		// What a guard looks at may have been changed by what came before.
		if known.guards[i] && (o.o.DryRun || o.result.Changes == o.done) {
			continue
		}
		if o.o.DryRun {
			o.change(provision.KindStep, s.Name, "", nil)
			continue
		}
		if provision.AtStart(s) { // the supervisor runs all of the mode, and knows which were run
			return o.startSteps(ctx, s.Mode)
		}
		ran, err := o.runner().Step(ctx, s, o.has.steps[i].Data, mark)
		if err != nil {
			return err
		}
		if ran {
			o.result.Changes++
			if err := o.keep(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// startSteps has the supervisor run the steps of a start: it is the only one to run them.
func (o *one) startSteps(ctx context.Context, mode profile.StepMode) error {
	ran := func(e provision.Event) {
		if e.Type == provision.Begin {
			o.result.Changes++
		}
		o.show(e) // the supervisor has logged it
	}
	return o.cfg.Service.StartSteps(ctx, &o.info.Distro, string(mode), ran)
}

// probes waits until the distro is ready.
func (o *one) probes(ctx context.Context) error {
	if o.o.DryRun {
		return nil
	}
	for _, p := range o.want.Probes {
		if err := o.runner().Await(ctx, p); err != nil {
			return err
		}
	}
	return nil
}
