package converge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// Config says what a Converger works with. Service, Machine and Dir are required.
type Config struct {
	Service *distro.Service
	Machine *machine.Machine
	Dir     string // of the profile's file, for the relative paths in it
	Home    string // of the user; "" is what the system says
	Getenv  func(string) string
	Version string // of lsub
}

// Converger makes distros what a profile says.
type Converger struct{ cfg Config }

// New returns a Converger. It reads nothing and starts nothing.
func New(cfg Config) *Converger {
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	if cfg.Home == "" {
		cfg.Home, _ = os.UserHomeDir()
	}
	return &Converger{cfg}
}

// Options say what an Up may do, and who hears of it.
type Options struct {
	DryRun  bool // change nothing, and tell what would be changed
	Restart bool // restart what has to be, also what runs
	Prune   bool // remove what an Up has made and the file does not have any more
	// Confirm is asked before a distro is removed with its files; nil is a yes.
	Confirm func(ctx context.Context, question string) (bool, error)
	Tell    func(provision.Event) // from one goroutine at a time; nil discards
}

// Result says what an Up did.
type Result struct {
	Changes  int // that were made, or with DryRun would be
	Restarts int // that are needed and were not allowed
	Left     int // things that the file does not have any more
}

// Up makes the distros of a profile what its file says, one after the other in the file's
// order, and starts them. It ends with the first failure; the next Up goes on there. Two of
// one profile run one after the other.
func (c *Converger) Up(ctx context.Context, p *profile.Profile, o Options) (Result, error) {
	u := &up{Converger: c, p: p, o: o}
	err := u.ended(u.converge(ctx))
	if u.log != nil {
		u.log.Close()
	}
	return u.result, err
}

// ended tells of the end of the whole.
func (u *up) ended(err error) error {
	if err != nil {
		u.tell(provision.Event{Type: provision.Failed, Text: err.Error()})
	} else {
		u.tell(provision.Event{Type: provision.End, Name: strconv.Itoa(u.result.Changes)})
	}
	return err
}

func (u *up) converge(ctx context.Context) error {
	if !u.o.DryRun {
		lock, err := u.lock(ctx)
		if err != nil {
			return err
		}
		defer lock.Release()
		u.log = provision.NewLog(u.cfg.Machine.ProvisionLog())
	}
	contents := map[string]contents{}
	for _, name := range u.p.DistroNames() { // before anything is changed
		has, err := u.read(name, u.p.Distros[name])
		if err != nil {
			return err
		}
		contents[name] = has
	}
	if err := u.vm(ctx); err != nil {
		return err
	}
	for _, name := range u.p.DistroNames() {
		one := &one{up: u, name: name, want: u.p.Distros[name], has: contents[name]}
		if err := one.converge(ctx); err != nil {
			return err
		}
	}
	return u.prune(ctx)
}

// up is an Up that is under way.
type up struct {
	*Converger
	p      *profile.Profile
	o      Options
	result Result
	log    *provision.Log // nil where nothing is done
}

func (u *up) lock(ctx context.Context) (*filelock.Lock, error) {
	if err := u.cfg.Machine.MakeDir(); err != nil {
		return nil, err
	}
	return filelock.Acquire(ctx, filepath.Join(u.cfg.Machine.Dir(), "up.lock"), func() {
		u.tell(provision.Event{Type: provision.Note, Text: "waiting for another 'lsub up' of this profile"})
	})
}

func (u *up) tell(e provision.Event) {
	e.V, e.Time = provision.Version, time.Now().UTC()
	if u.log != nil {
		u.log.Tell(e)
	}
	u.show(e)
}

// show is tell of what another process has logged.
func (u *up) show(e provision.Event) {
	if u.o.Tell != nil {
		u.o.Tell(e)
	}
}

// change makes a change and tells of it. In a dry run, it tells of it alone.
func (u *up) change(e provision.Event, do func() error) error {
	u.result.Changes++
	if u.o.DryRun {
		e.Type = provision.Plan
		u.tell(e)
		return nil
	}
	e.Type = provision.Begin
	u.tell(e)
	if err := do(); err != nil {
		return err
	}
	e.Type, e.Text = provision.Done, ""
	u.tell(e)
	return nil
}

// vm restarts a VM that was started with other settings, or tells that it has to be.
func (u *up) vm(ctx context.Context) error {
	_, err := u.cfg.Machine.Status(ctx)
	if errors.Is(err, machine.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	rec := u.cfg.Machine.Record()
	if rec == nil || rec.Settings == nil {
		return nil // of an lsub that did not note them
	}
	var changed []string
	for key, sum := range u.p.Settings() {
		if rec.Settings[key] != sum {
			changed = append(changed, key)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	slices.Sort(changed)
	text := strings.Join(changed, ", ") + " changed"
	if !u.o.Restart {
		u.result.Restarts++
		u.tell(provision.Event{Type: provision.Restart, Kind: provision.KindVM, Text: text})
		return nil
	}
	return u.change(provision.Event{Kind: provision.KindVM, Text: "restart: " + text}, func() error {
		if err := u.cfg.Machine.Shutdown(ctx, false); err != nil && !errors.Is(err, machine.ErrNotRunning) {
			return err
		}
		return u.cfg.Machine.Start(ctx)
	})
}

// prune removes the distros that an Up has made and that the file does not have any more, or
// tells of them.
func (u *up) prune(ctx context.Context) error {
	reg, err := u.cfg.Machine.Registry()
	if err != nil {
		return err
	}
	for _, d := range reg.Distros {
		if _, wanted := u.p.Distros[strings.ToLower(d.Name)]; wanted || d.Up == nil || !d.Up.Made {
			continue
		}
		if !u.o.Prune {
			u.result.Left++
			u.tell(provision.Event{Type: provision.Left, Distro: d.Name, Kind: provision.KindDistro})
			continue
		}
		if u.o.Confirm != nil && !u.o.DryRun {
			yes, err := u.o.Confirm(ctx, fmt.Sprintf("%s left the file. Remove it with all its files?", d.Name))
			if err != nil {
				return err
			}
			if !yes {
				u.result.Left++
				continue
			}
		}
		err := u.change(provision.Event{Distro: d.Name, Kind: provision.KindDistro, Text: "remove"}, func() error {
			return u.cfg.Service.Unregister(ctx, &d)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Down stops the distros of a profile that run.
func (c *Converger) Down(ctx context.Context, p *profile.Profile, grace time.Duration, tell func(provision.Event)) error {
	u := &up{Converger: c, p: p, o: Options{Tell: tell}}
	return u.ended(u.stop(ctx, grace))
}

func (u *up) stop(ctx context.Context, grace time.Duration) error {
	infos, err := u.cfg.Service.List(ctx, distro.ListOptions{})
	if err != nil {
		return err
	}
	for _, i := range infos {
		if _, of := u.p.Distros[strings.ToLower(i.Name)]; !of || i.State == distro.StateStopped {
			continue
		}
		err := u.change(provision.Event{Distro: i.Name, Kind: provision.KindDistro, Text: "stop"}, func() error {
			return u.cfg.Service.Stop(ctx, &i.Distro, grace)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
