package converge

import (
	"context"
	_ "embed" // the scripts below
	"fmt"
	"slices"
	"strings"

	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
	"github.com/lsub/lsub/wslconf"
)

//go:embed packages.sh
var packagesScript string

//go:embed put.sh
var putScript string

// inside changes what is in a distro that runs.
func (o *one) inside(ctx context.Context) error {
	root, err := o.ask(ctx, false)
	if err != nil {
		return err
	}
	if again, err := o.systemd(ctx, root); err != nil {
		return err
	} else if again { // what a start does is to be done anew
		if root, err = o.ask(ctx, false); err != nil {
			return err
		}
	}
	home := &state{}
	if o.hasHome() || o.info.Up != nil && o.info.Up.Home {
		if home, err = o.ask(ctx, true); err != nil {
			return err
		}
	}
	if back, err := o.goBack(ctx, root, home); err != nil {
		return err
	} else if back {
		return o.inside(ctx) // as of a distro that was cut off there
	}
	if err := o.steps(ctx, root, home, profile.StepBoot); err != nil {
		return err
	}
	if err := o.packages(ctx, root); err != nil {
		return err
	}
	if err := o.files(ctx, root, home); err != nil {
		return err
	}
	if err := o.keepBefore(ctx, root, home); err != nil {
		return err
	}
	if err := o.steps(ctx, root, home, profile.StepSystem, profile.StepUser); err != nil {
		return err
	}
	if err := o.probes(ctx); err != nil {
		return err
	}
	if err := o.steps(ctx, root, home, profile.StepReady); err != nil {
		return err
	}
	if err := o.left(ctx, root, false); err != nil {
		return err
	}
	if err := o.left(ctx, home, true); err != nil {
		return err
	}
	return o.forgetKept(ctx)
}

// hasHome tells whether the profile has something that the default user is to do or to have.
func (o *one) hasHome() bool {
	return slices.ContainsFunc(o.want.Files, func(f profile.GuestFile) bool { return f.Home() }) ||
		slices.ContainsFunc(o.want.Provision, func(s profile.Step) bool { return s.Mode == profile.StepUser })
}

// systemd has systemd be process 1 or not, and tells whether the distro was restarted.
func (o *one) systemd(ctx context.Context, s *state) (restarted bool, err error) {
	want := o.want.Systemd
	if want == nil {
		return false, nil
	}
	set := wslconf.Defaults()
	set.Apply("/etc/lsub.conf", []byte(s.conf))
	_, said := value(s.conf)
	if !said || set.Systemd != *want {
		text := "off"
		if *want {
			text = "on"
		}
		err := o.change(provision.KindSystemd, "", text, func() error {
			conf := wslconf.Set([]byte(s.conf), "boot", "systemd", fmt.Sprint(*want))
			return o.put(ctx, profile.GuestFile{Path: "/etc/lsub.conf", Mode: 0o644}, conf, provision.KindSystemd, "")
		})
		if err != nil {
			return false, err
		}
	}
	runs := o.info.Init == "systemd"
	if runs == *want || *want && !s.systemd || o.o.DryRun {
		return false, nil
	}
	before, why := o.result.Restarts, "systemd stays process 1 until a restart"
	if *want {
		why = "systemd is process 1 only after a restart"
	}
	err = o.restart(ctx, provision.KindSystemd, why)
	return o.result.Restarts == before, err
}

// value returns what a file says of systemd.
func value(conf string) (string, bool) {
	entries, _ := wslconf.Parse([]byte(conf))
	for _, e := range slices.Backward(entries) {
		if e.Name == "boot.systemd" {
			return e.Value, true
		}
	}
	return "", false
}

// packages installs those that are missing.
func (o *one) packages(ctx context.Context, s *state) error {
	var missing []string
	for _, p := range o.want.Packages {
		// One that is there under another name alone was installed by that.
		if !s.packages[p] && s.marks[packageMark(p)] != "virtual" {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if s.manager == "" {
		return hint.New(fmt.Errorf("%s: %s has no package manager that lsub knows", o.p.At("distros."+o.name+".packages"), o.name),
			"they are apt, dnf, zypper, pacman and apk; install it by a step")
	}
	return o.change(provision.KindPackages, strings.Join(missing, " "), "", func() error {
		return o.manage(ctx, s, "install", missing)
	})
}

// manage has the package manager install or remove packages, and keeps marks of those.
func (o *one) manage(ctx context.Context, s *state, verb string, names []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "set -- %s %s %s", quoted(provision.RootMarks), quoted(s.manager), verb)
	for _, p := range names {
		b.WriteString(" " + quoted(p))
	}
	fmt.Fprintf(&b, "\n%s\nmanager=%s\n%s", stateScript, quoted(s.manager), packagesScript)
	for _, p := range names {
		if verb == "install" {
			fmt.Fprintf(&b, "text=virtual; if has %s; then text=%s; fi; echo \"$text\" >\"$dir\"/%s\n", quoted(p), quoted(p), packageMark(p))
		} else {
			fmt.Fprintf(&b, "rm -f \"$dir\"/%s\n", packageMark(p))
		}
	}
	return o.runner().Run(ctx, provision.Task{
		Kind: provision.KindPackages, At: o.p.At("distros." + o.name + ".packages"),
		Command: provision.Command{Argv: []string{"/bin/sh", "-s", "lsub-up"}, User: "root", Stdin: strings.NewReader(b.String())},
	})
}

// files writes those that are not as they are to be.
func (o *one) files(ctx context.Context, root, home *state) error {
	for i, f := range o.want.Files {
		s := root
		if f.Home() {
			s = home
		}
		c := o.has.files[i]
		_, marked := s.marks[fileMark(f.Path)]
		if s.files[i].is(f, c.Sum) && marked {
			continue
		}
		err := o.change(provision.KindFile, f.Path, "", func() error { return o.put(ctx, f, c.Data, provision.KindFile, fileMark(f.Path)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// put writes a file. mark is "" for one that no later Up removes.
func (o *one) put(ctx context.Context, f profile.GuestFile, data []byte, kind provision.Kind, mark string) error {
	dir, user, owner := provision.RootMarks, "root", f.Owner
	if f.Home() {
		dir, user = provision.UserMarks, ""
	} else if owner == "" {
		owner = "0:0"
	}
	if mark == "" {
		mark = ".unmarked"
	}
	return o.runner().Run(ctx, provision.Task{Kind: kind, Name: f.Path, At: f.At, Command: provision.Command{
		Argv: []string{"/bin/sh", "-c", putScript, "lsub-put", f.Path, fmt.Sprintf("%04o", f.Mode), owner, dir, mark},
		User: user, Env: []string{fmt.Sprintf("LSUB_SIZE=%d", len(data))},
		Stdin: strings.NewReader(string(data)),
	}})
}

// left removes what an Up has made in the distro and the file does not have any more, or
// tells of it. What steps have done stays: their marks go, so that a step which comes back is
// run again.
func (o *one) left(ctx context.Context, s *state, home bool) error {
	wanted := map[string]bool{}
	for _, p := range o.want.Packages {
		wanted[packageMark(p)] = true
	}
	for _, f := range o.want.Files {
		wanted[fileMark(f.Path)] = f.Home() == home || wanted[fileMark(f.Path)]
	}
	for _, mark := range o.has.marks {
		wanted[mark] = true
	}
	var forget []string
	names := make([]string, 0, len(s.marks))
	for mark := range s.marks {
		if !wanted[mark] && isMark.MatchString(mark) {
			names = append(names, mark)
		}
	}
	slices.Sort(names)
	for _, mark := range names {
		kind, name := provision.KindFile, s.marks[mark]
		switch {
		case strings.HasPrefix(mark, "package-") && name == "virtual":
			forget = append(forget, mark) // what it has brought has other names
			continue
		case strings.HasPrefix(mark, "package-"):
			kind, name = provision.KindPackages, strings.TrimPrefix(mark, "package-")
		case strings.HasPrefix(mark, "step-"):
			forget = append(forget, mark)
			continue
		case !strings.HasPrefix(mark, "file-"):
			continue // of a start
		case fileMark(name) != mark:
			continue // the distro has changed it
		}
		if !o.o.Prune {
			o.result.Left++
			o.tell(provision.Event{Type: provision.Left, Distro: o.name, Kind: kind, Name: name})
			continue
		}
		err := o.change(kind, name, "remove", func() error {
			if kind == provision.KindPackages {
				return o.manage(ctx, s, "remove", []string{name})
			}
			return o.remove(ctx, home, name, mark)
		})
		if err != nil {
			return err
		}
	}
	if len(forget) == 0 || o.o.DryRun {
		return nil
	}
	return o.forget(ctx, home, forget)
}

// remove removes a file that an Up has written.
func (o *one) remove(ctx context.Context, home bool, path, mark string) error {
	script := fmt.Sprintf("full %s\nrm -f \"$full\" && rm -f \"$dir\"/%s\n", quoted(path), mark)
	return o.script(ctx, home, provision.KindFile, path, script)
}

// forget removes marks of steps.
func (o *one) forget(ctx context.Context, home bool, marks []string) error {
	return o.script(ctx, home, provision.KindStep, "", "cd \"$dir\" && rm -f "+strings.Join(marks, " ")+"\n")
}

// script runs a script of ours, after state.sh.
func (o *one) script(ctx context.Context, home bool, kind provision.Kind, name, text string) error {
	dir, user := provision.RootMarks, "root"
	if home {
		dir, user = provision.UserMarks, ""
	}
	text = fmt.Sprintf("set -- %s\n%s\n%s", quoted(dir), stateScript, text)
	return o.runner().Run(ctx, provision.Task{Kind: kind, Name: name, Command: provision.Command{
		Argv: []string{"/bin/sh", "-s", "lsub-up"}, User: user, Stdin: strings.NewReader(text),
	}})
}
