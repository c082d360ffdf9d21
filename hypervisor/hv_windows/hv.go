// Package hvwindows runs VMs on Windows with the Host Compute System, as WSL does: on
// Windows 10 from version 2004 on and Windows 11, Home too.
//
//	driver := hvwindows.New(hvwindows.Options{Logger: log})
//	vm, err := driver.Start(ctx, cfg)
//
// A VM belongs to the process that started it: when that ends, however it does, Windows ends
// the VM. What the driver asks of Windows is in two interfaces: [Host] and [System]. On
// Windows, a thin binding of computecore.dll and Hyper-V sockets implements them
// (host_windows.go). Everything else, such as the document that describes a VM, its disks,
// streams and states, and what errors mean, runs on every system. There, package hcstest
// stands in for Windows: its VMs are those of another driver.
//
// The Host Compute System has no network card that a process could serve
// ([hypervisor.Cardless]), and no raw disks ([hypervisor.DiskMaker]): they are VHDX files.
//
// docs/platforms.md says what was proven where.
package hvwindows

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

var (
	_ hypervisor.Driver    = (*Driver)(nil)
	_ hypervisor.Nester    = (*Driver)(nil)
	_ hypervisor.Cardless  = (*Driver)(nil)
	_ hypervisor.DiskMaker = (*Driver)(nil)
	_ hypervisor.Examiner  = (*Driver)(nil)
)

// Options are the choices of a [Driver]. The zero value is ready to use.
type Options struct {
	// Logger receives the driver's workarounds; nil discards. Messages about one VM go to its
	// Config's Logger.
	Logger *slog.Logger
}

// Driver starts VMs. It is safe for concurrent use.
type Driver struct {
	host Host
	log  *slog.Logger
}

// NewWith returns a driver on a host. It does no I/O.
func NewWith(h Host, opts Options) *Driver { return &Driver{host: h, log: logger(opts.Logger)} }

// logger returns l, or one that discards.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Name is "hv".
func (d *Driver) Name() string { return "hv" }

// Check returns an error unless this machine and this user may run VMs.
func (d *Driver) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := d.facts()
	return err
}

// facts returns what the host is like, if it runs VMs.
func (d *Driver) facts() (Facts, error) {
	f, err := d.host.Facts()
	if err != nil {
		return f, explain(err)
	}
	return f, f.checkVersion()
}

func (f Facts) checkVersion() error {
	need := schema22
	if f.Arch == "arm64" {
		need = schema23
	}
	if !f.Schema.before(need) {
		return nil
	}
	return hint.New(fmt.Errorf("this Windows (%s) is too old: its VM service knows documents of version %d.%d, lsub needs %d.%d", f.Version, f.Schema.Major, f.Schema.Minor, need.Major, need.Minor),
		"update Windows: lsub needs version 2004 of Windows 10 or a later one")
}

// Examine looks at the service and at Windows.
func (d *Driver) Examine(context.Context) []hypervisor.Requirement {
	f, err := d.host.Facts()
	list := []hypervisor.Requirement{{Name: "VM service", Found: "it answers", Err: explain(err)}}
	if err != nil {
		list[0].Found = ""
		return list
	}
	return append(list, hypervisor.Requirement{Name: "Windows", Found: f.Version, Err: f.checkVersion()})
}

// NoCard says that VMs have no network card.
func (d *Driver) NoCard() error {
	return errors.New("no network card of a VM can be served on Windows; its frames go over a vsock stream")
}

// CheckNested cannot know whether the processor has nested virtualization: the start of such a
// VM tells.
func (d *Driver) CheckNested(context.Context) error {
	_, err := d.facts()
	return err
}

// Start runs a VM.
func (d *Driver) Start(ctx context.Context, cfg hypervisor.Config) (hypervisor.VM, error) {
	v, err := d.start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start VM %s: %w", cfg.Name, err)
	}
	return v, nil
}

func (d *Driver) start(ctx context.Context, cfg hypervisor.Config) (*vm, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.NIC != nil {
		return nil, d.NoCard()
	}
	if len(cfg.Shares) > 0 {
		return nil, errors.New("the VMs of this driver share no directories")
	}
	facts, err := d.facts()
	if err != nil {
		return nil, err
	}
	if err := facts.checkConfig(&cfg); err != nil {
		return nil, err
	}
	if err := prepare(&cfg); err != nil {
		return nil, err
	}
	document, err := newDocument(&cfg, facts)
	if err != nil {
		return nil, err
	}
	id := systemID(&cfg)
	for _, path := range append([]string{cfg.Kernel, cfg.Initrd}, diskPaths(&cfg)...) {
		if path == "" {
			continue
		}
		if err := d.host.Grant(id, path); err != nil {
			return nil, fmt.Errorf("let the VM open %s: %w", path, explain(err))
		}
	}
	v := newVM(&cfg, d.host, facts, logger(cfg.Logger).With("vm", cfg.Name))
	if v.system, err = d.host.Create(id, document); err != nil {
		v.end()
		return nil, explain(err)
	}
	if err := v.begin(ctx); err != nil {
		v.end()
		return nil, err
	}
	return v, nil
}

// checkConfig returns what a VM asks for and this machine does not have.
func (f Facts) checkConfig(cfg *hypervisor.Config) error {
	if cfg.Memory > f.MaxMemory {
		return hint.New(fmt.Errorf("not enough memory: the VM wants %d MiB, this machine has %d MiB", cfg.Memory>>20, f.MaxMemory>>20), lessMemory)
	}
	if cfg.CPUs > f.MaxCPUs {
		return hint.New(fmt.Errorf("the VM wants %d processors, this machine has %d", cfg.CPUs, f.MaxCPUs), "give the VM fewer processors")
	}
	return nil
}

// prepare reports errors in our own words before Windows reports them in its words. It gives
// read-only raw disks the format that Windows takes, and truncates the console's file.
func prepare(cfg *hypervisor.Config) error {
	if err := checkKernel(cfg.Kernel); err != nil {
		return err
	}
	if cfg.Initrd != "" {
		if err := checkFile("initrd", cfg.Initrd); err != nil {
			return err
		}
	}
	disks := append([]hypervisor.Disk(nil), cfg.Disks...) // the caller's stay as they are
	for i := range disks {
		if err := checkFile("disk", disks[i].Path); err != nil {
			return err
		}
		var err error
		if disks[i].Path, err = asVHDX(disks[i]); err != nil {
			return fmt.Errorf("disk %s: %w", cfg.Disks[i].Path, err)
		}
	}
	cfg.Disks = disks
	console, err := os.OpenFile(cfg.Console, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	return console.Close()
}

// checkFile returns why a file cannot be opened, or nil.
func checkFile(what, name string) error {
	fi, err := os.Stat(name)
	if err == nil && !fi.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: name, Err: errors.New("it is no file")}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// checkKernel returns why a file is no kernel that Windows starts, or nil. Of such a one,
// Windows says that the VM has ended during its start.
func checkKernel(path string) error {
	if err := checkFile("kernel", path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	for _, m := range []struct {
		at    int64
		magic string
	}{{0, "\x7fELF"}, {0x202, "HdrS"}, {0x38, "ARM\x64"}} { // vmlinux, bzImage, arm64 Image
		b := make([]byte, len(m.magic))
		if n, _ := f.ReadAt(b, m.at); n == len(b) && string(b) == m.magic {
			return nil
		}
	}
	return fmt.Errorf("kernel %s: it is no Linux kernel", path)
}

func diskPaths(cfg *hypervisor.Config) []string {
	var paths []string
	for _, d := range cfg.Disks {
		paths = append(paths, d.Path)
	}
	return paths
}
