// Package vz runs VMs on macOS with Apple's Virtualization.framework.
//
//	driver := vz.New(vz.Options{Logger: log})
//	vm, err := driver.Start(ctx, cfg)
//
// A VM lives in a process of the system that ends with the one that started it. What the
// driver asks of the framework is in two plain types: [Settings] describes a VM, and a
// [Machine] is one that runs. On a Mac, a thin layer over the binding Code-Hex/vz implements
// them (framework_darwin.go); there is no other Go code that needs a Mac. Everything else,
// such as states, streams, the network card and what errors mean, runs on every system. There,
// package vztest stands in for the framework: its machines are VMs of another driver.
//
// docs/platforms.md says what was proven where.
package vz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

var (
	_ hypervisor.Driver   = (*Driver)(nil)
	_ hypervisor.Sharer   = (*Driver)(nil)
	_ hypervisor.Nester   = (*Driver)(nil)
	_ hypervisor.Restorer = (*Driver)(nil)
)

// Options are the choices of a [Driver]. The zero value is ready to use.
type Options struct {
	// Logger receives the driver's workarounds; nil discards. Messages about one VM go to its
	// Config's Logger.
	Logger *slog.Logger
}

// Driver starts VMs. It is safe for concurrent use.
type Driver struct {
	framework Framework
	log       *slog.Logger
}

// NewWith returns a driver on a framework. It does no I/O.
func NewWith(f Framework, opts Options) *Driver {
	return &Driver{framework: f, log: logger(opts.Logger)}
}

// logger returns l, or one that discards.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Name is "vz".
func (d *Driver) Name() string { return "vz" }

// Check returns an error unless this Mac and this program may run VMs.
func (d *Driver) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.framework.Facts().check(); err != nil {
		return err
	}
	return d.checkTrial()
}

// checkTrial has the framework validate a small VM. An error that says nothing of the program or
// the Mac may be about that VM alone: then the start of a real one tells.
func (d *Driver) checkTrial() error {
	err := d.framework.Check()
	if why := explain(err); hint.Of(why) != "" {
		return why
	}
	if err != nil {
		d.log.Debug("the framework does not like a small VM", "err", err)
	}
	return nil
}

// CheckShare wants a directory.
func (d *Driver) CheckShare(s hypervisor.Share) error {
	fi, err := os.Stat(s.Dir)
	if err == nil && !fi.IsDir() {
		err = &os.PathError{Op: "share", Path: s.Dir, Err: errors.New("it is no directory")}
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", s.Tag, err)
	}
	return nil
}

// CheckNested returns why VMs cannot run VMs on this Mac, or nil.
func (d *Driver) CheckNested(context.Context) error { return d.framework.Facts().checkNested() }

// Start runs a VM.
func (d *Driver) Start(ctx context.Context, cfg hypervisor.Config) (hypervisor.VM, error) {
	return d.launch(ctx, cfg, "")
}

// Restore starts a VM from the state that Save has written. It is paused.
func (d *Driver) Restore(ctx context.Context, cfg hypervisor.Config, path string) (hypervisor.VM, error) {
	return d.launch(ctx, cfg, path)
}

// launch starts a VM, from a saved state if there is one.
func (d *Driver) launch(ctx context.Context, cfg hypervisor.Config, saved string) (hypervisor.VM, error) {
	v, err := d.start(ctx, cfg, saved)
	if err != nil {
		return nil, fmt.Errorf("start VM %s: %w", cfg.Name, err)
	}
	if s, ok := v.machine.(Saving); ok {
		return &savingVM{v, s}, nil
	}
	return v, nil
}

func (d *Driver) start(ctx context.Context, cfg hypervisor.Config, saved string) (_ *vm, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	facts := d.framework.Facts()
	if err := errors.Join(facts.check(), facts.checkConfig(&cfg)); err != nil {
		return nil, err
	}
	for _, s := range cfg.Shares {
		if err := d.CheckShare(s); err != nil {
			return nil, err
		}
	}
	if err := prepare(&cfg, facts); err != nil {
		return nil, err
	}
	v := newVM(&cfg, facts, logger(cfg.Logger).With("vm", cfg.Name))
	defer func() {
		if err != nil {
			v.abandon()
		}
	}()
	s := newSettings(&cfg, facts)
	if saved != "" {
		if s.MachineIdentifier, err = os.ReadFile(identifierFile(saved)); err != nil {
			return nil, fmt.Errorf("the saved state %s: %w", saved, err)
		}
	}
	if cfg.NIC != nil {
		if err := v.openNIC(s); err != nil {
			return nil, err
		}
	}
	if v.machine, err = d.framework.NewMachine(s); err != nil {
		return nil, explain(err)
	}
	return v, v.begin(ctx, saved)
}

// prepare reports errors in our own words before the framework reports them in its words. It
// also truncates the console's file.
func prepare(cfg *hypervisor.Config, f Facts) error {
	if err := checkKernel(cfg.Kernel, f.Kernels); err != nil {
		return err
	}
	if cfg.Initrd != "" {
		if err := checkFile("initrd", cfg.Initrd, true); err != nil {
			return err
		}
	}
	for _, disk := range cfg.Disks {
		if err := checkFile("disk", disk.Path, disk.ReadOnly); err != nil {
			return err
		}
	}
	console, err := os.OpenFile(cfg.Console, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	return console.Close()
}

// checkFile returns why a file cannot be opened for reading or for writing, or nil. For a
// disk that is missing, the framework says that an operation is not supported.
func checkFile(what, name string, readOnly bool) error {
	fi, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !fi.Mode().IsRegular() { // nothing else is opened: that of a pipe would wait
		return fmt.Errorf("%s: %w", what, &os.PathError{Op: "open", Path: name, Err: errors.New("it is no file")})
	}
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(name, mode, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	if !readOnly && isLocked(f) { // as by the Finder, which has mounted it
		return hint.New(fmt.Errorf("%w: %s", hypervisor.ErrDiskInUse, name), freeDisk)
	}
	return nil
}

// identifierFile is the file beside a saved state that names the machine: the framework
// restores a state only on the machine that it is of.
func identifierFile(saved string) string {
	return filepath.Join(filepath.Dir(saved), filepath.Base(saved)+".machine")
}
