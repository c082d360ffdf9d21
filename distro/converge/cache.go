package converge

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/profile"
)

// isCache is what the snapshots are called that keep a distro as it is after a step.
var isCache = regexp.MustCompile(`^up-[0-9a-f]{16}$`)

// cacheNames returns the snapshot before all steps, and that after each of them: of the image, and
// of all steps up to it. A step that runs at each start has none, "", and neither has one with a
// guard: nothing tells when it ran.
func cacheNames(image string, steps []profile.Step, has []provision.Content) (before string, after []string) {
	after = make([]string, len(steps))
	sum := provision.SumOf([]byte(image), nil)
	before = "up-" + sum[:16]
	for i, s := range steps {
		if provision.AtStart(s) || provision.Guarded(s) {
			continue
		}
		sum = provision.SumOf([]byte(sum), []byte(s.Mode), has[i].Data)
		after[i] = "up-" + sum[:16]
	}
	return before, after
}

// kept is cacheNames of the distro.
func (o *one) kept() (before string, after []string) {
	return cacheNames(o.want.Image, o.want.Provision, o.has.steps)
}

// goBack has a distro that keeps its steps be what it was after the last step that has not
// changed, where steps were run that the file does not have any more. It tells whether it did.
func (o *one) goBack(ctx context.Context, root, home *state) (bool, error) {
	if !o.want.Cache || o.back || !o.hasOldSteps(root) && !o.hasOldSteps(home) {
		return false, nil
	}
	last, names := o.kept()
	text := "go back to how it was before its steps"
	if _, err := o.info.Distro.FindSnapshot(last); err != nil {
		o.tell(provision.Event{Type: provision.Note, Distro: o.name, Kind: provision.KindDistro,
			Text: "a step changed, and nothing was kept of before; the steps run in the distro as it is"})
		return false, nil
	}
	for i, name := range names {
		if name == "" {
			continue
		}
		if _, err := o.info.Distro.FindSnapshot(name); err != nil {
			break
		}
		last, text = name, "go back to how it was after "+quotedStep(o.want.Provision[i].Name)
	}
	if o.o.DryRun {
		return false, o.change(provision.KindDistro, "", text, nil)
	}
	if o.o.Confirm != nil {
		yes, err := o.o.Confirm(ctx, fmt.Sprintf("A step of %s changed. Have it %s, and lose what has changed in it since?", o.name, text))
		if err != nil || !yes {
			return false, err
		}
	}
	err := o.change(provision.KindDistro, "", text, func() error {
		if err := o.cfg.Service.RestoreSnapshot(ctx, &o.info.Distro, last); err != nil {
			return err
		}
		o.back = true
		return o.begin(ctx)
	})
	return err == nil, err
}

func quotedStep(name string) string {
	if strings.HasPrefix(name, "step ") {
		return name
	}
	return "step " + name
}

// hasOldSteps tells whether a distro has marks of steps that the file does not have.
func (o *one) hasOldSteps(s *state) bool {
	wanted := map[string]bool{}
	for _, mark := range o.has.marks {
		wanted[mark] = true
	}
	for mark := range s.marks {
		if strings.HasPrefix(mark, "step-") && !wanted[mark] {
			return true
		}
	}
	return false
}

// keepBefore keeps a distro in which no step was run.
func (o *one) keepBefore(ctx context.Context, root, home *state) error {
	name, names := o.kept()
	o.keeps = o.want.Cache && !o.o.DryRun && !o.hasOldSteps(root) && !o.hasOldSteps(home)
	if !o.keeps {
		return nil
	}
	// What is kept after a step must have nothing of those after it.
	done := func(i int) bool {
		mark := o.has.marks[i]
		_, inRoot := root.marks[mark]
		_, inHome := home.marks[mark]
		return inRoot || inHome
	}
	missing, any := false, false
	for i, name := range names {
		if name == "" {
			continue
		}
		any = any || done(i)
		missing = missing || !done(i)
		if missing && done(i) {
			o.keeps = false
			return nil
		}
	}
	if any || !missing {
		return nil
	}
	return o.keepAs(ctx, name)
}

// keep keeps the distro as it is after a step that has been run.
func (o *one) keep(ctx context.Context, step int) error {
	if _, names := o.kept(); o.keeps && names[step] != "" {
		return o.keepAs(ctx, names[step])
	}
	return nil
}

func (o *one) keepAs(ctx context.Context, name string) error {
	if _, err := o.look(ctx); err != nil { // which snapshots there are
		return err
	}
	if _, err := o.info.Distro.FindSnapshot(name); err == nil {
		// Of an earlier time, when the same steps had been run: the distro is another one now.
		if err := o.quiet().DeleteSnapshot(ctx, &o.info.Distro, name); err != nil {
			return err
		}
		if _, err := o.look(ctx); err != nil {
			return err
		}
	}
	_, err := o.quiet().CreateSnapshot(ctx, &o.info.Distro, name)
	return err
}

// forgetKept deletes what was kept of steps that the file does not have any more.
func (o *one) forgetKept(ctx context.Context) error {
	if o.o.DryRun {
		return nil
	}
	wanted := map[string]bool{}
	if o.want.Cache {
		before, after := o.kept()
		wanted[before] = true
		for _, name := range after {
			wanted[name] = true
		}
	}
	if _, err := o.look(ctx); err != nil {
		return err
	}
	for _, snap := range o.info.Snapshots {
		if isCache.MatchString(snap.Name) && !wanted[snap.Name] {
			if err := o.quiet().DeleteSnapshot(ctx, &o.info.Distro, snap.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// quiet is the service without progress: a snapshot is made at once.
func (o *one) quiet() *distro.Service { return o.cfg.Service.Quiet() }
