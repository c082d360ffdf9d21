package kvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
	"github.com/lsub/lsub/vsocksecret"
)

var (
	_ hypervisor.Driver    = (*Driver)(nil)
	_ hypervisor.Nester    = (*Driver)(nil)
	_ hypervisor.Emulator  = (*Driver)(nil)
	_ hypervisor.VM        = (*vm)(nil)
	_ hypervisor.Paused    = (*vm)(nil)
	_ hypervisor.Pauser    = (*vm)(nil)
	_ hypervisor.Balloon   = (*vm)(nil)
	_ hypervisor.Described = (*vm)(nil)
)

// slowWarning is logged when auto finds no hardware virtualization.
const slowWarning = "no hardware virtualization on this machine; using software emulation, which is slower"

// Driver starts QEMU. It is safe for concurrent use.
type Driver struct {
	opts Options
	log  *slog.Logger
	slow sync.Once // the warning about emulation

	mu       sync.Mutex
	versions map[probe]version
}

// New returns a driver. It does no I/O; see [Driver.Check].
func New(opts Options) *Driver {
	return &Driver{opts: opts, log: logger(opts.Logger), versions: map[probe]version{}}
}

// logger returns l, or one that discards.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Name is "kvm".
func (d *Driver) Name() string { return "kvm" }

// Check returns an error unless QEMU exists, is new enough, and supports the Options.
func (d *Driver) Check(ctx context.Context) error {
	if err := d.opts.validate(); err != nil {
		return err
	}
	program, err := findQEMU(&d.opts)
	if err != nil {
		return err
	}
	if err := d.checkVersion(ctx, program); err != nil {
		return err
	}
	_, _, err = chooseAccel(d.opts.Accel, readAccelFacts(d.opts.arch()))
	return err
}

// Start runs a VM in a QEMU of its own.
func (d *Driver) Start(ctx context.Context, cfg hypervisor.Config) (hypervisor.VM, error) {
	vm, err := d.start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start VM %s: %w", cfg.Name, err)
	}
	return vm, nil
}

func (d *Driver) start(ctx context.Context, cfg hypervisor.Config) (*vm, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := errors.Join(d.opts.validate(), cfg.Validate()); err != nil {
		return nil, err
	}
	if len(cfg.Shares) > 0 {
		return nil, errors.New("QEMU shares no directories by itself")
	}
	program, err := findQEMU(&d.opts)
	if err != nil {
		return nil, err
	}
	accel, reason, err := chooseAccel(d.opts.Accel, readAccelFacts(d.opts.arch()))
	if err != nil {
		return nil, err
	}
	if cfg.Nested {
		if err := checkNested(readNestedFacts(d.opts.arch(), accel)); err != nil {
			return nil, err
		}
	}
	if reason != nil {
		d.slow.Do(func() { d.log.Warn(slowWarning, "reason", reason) })
	}
	log := logger(cfg.Logger).With("vm", cfg.Name)
	if err := prepare(&cfg, d.opts.arch(), log); err != nil {
		return nil, err
	}
	l := &launch{cfg: &cfg, program: program, log: log, facts: facts{
		arch: d.opts.arch(), accel: accel, nicFD: noFD, vhostFD: noFD, userFD: noFD,
		nicNoMSI: d.lacksMSI(ctx, &cfg, program, accel),
	}}
	vm, err := l.run(ctx, d.opts)
	if err != nil && ctx.Err() == nil {
		// A QEMU that is too old fails over unknown arguments. The version is asked only now,
		// because the answer takes as long as our own work in a start.
		if old := d.checkVersion(ctx, program); old != nil {
			return nil, old
		}
	}
	return vm, err
}

// CheckNested returns why VMs can run no VMs themselves on this machine, or nil.
func (d *Driver) CheckNested(context.Context) error {
	arch := d.opts.arch()
	accel, _, err := chooseAccel(d.opts.Accel, readAccelFacts(arch))
	if err != nil {
		return err
	}
	return checkNested(readNestedFacts(arch, accel))
}

// Emulates reports whether there is no KVM for a VM that starts now.
func (d *Driver) Emulates(context.Context) bool {
	accel, _, err := chooseAccel(d.opts.Accel, readAccelFacts(d.opts.arch()))
	return err == nil && accel == AccelTCG
}

// lacksMSI reports whether the network card has to do without MSI-X; if in doubt, it has to.
// It runs QEMU to get its version.
func (d *Driver) lacksMSI(ctx context.Context, cfg *hypervisor.Config, program string, accel Accel) bool {
	if cfg.NIC == nil || cfg.NIC.Attach == nil || accel != AccelTCG {
		return false
	}
	v, err := d.qemuVersion(ctx, program)
	return err != nil || v.less(fixedMSI)
}

// prepare reports errors in our own words before QEMU reports them in its words. It also
// truncates the console's file.
func prepare(cfg *hypervisor.Config, arch string, log *slog.Logger) error {
	if err := checkKernel(cfg.Kernel, arch); err != nil {
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
	mem, err := readMemoryFacts()
	if err != nil {
		return err
	}
	warn, err := checkMemory(cfg.Memory, mem)
	if err != nil {
		return err
	}
	if warn != "" {
		log.Warn(warn)
	}
	console, err := os.OpenFile(cfg.Console, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	return console.Close()
}

// launch is a start in progress.
type launch struct {
	cfg     *hypervisor.Config
	program string
	facts   facts
	log     *slog.Logger
	files   []*os.File // QEMU's file descriptors from 3 on
}

// inherit adds a file to those that QEMU inherits, and returns its number in QEMU.
func (l *launch) inherit(f *os.File) int {
	l.files = append(l.files, f)
	return 2 + len(l.files)
}

// run starts QEMU and returns once the guest's processors run. On failure it cleans up.
func (l *launch) run(ctx context.Context, opts Options) (_ *vm, err error) {
	v := newVM(l.cfg, l.log)
	v.accel = l.facts.accel
	defer func() {
		for _, f := range l.files {
			f.Close()
		}
		if err != nil {
			v.abandon()
		}
	}()
	var secret vsocksecret.Secret
	if opts.VSock == VSockKernel {
		secret = vsocksecret.New()
		remove, err := l.giveSecret(secret)
		if err != nil {
			return nil, err
		}
		defer remove() // QEMU has read it when the processors run
	}
	qmpConn, err := l.open(v, opts, secret)
	if err != nil {
		return nil, err
	}
	args := argv(l.cfg, l.facts)
	l.log.Debug("starting QEMU", "argv", quoteArgv(append([]string{l.program}, args...)))
	if v.qemu, err = startProcess(l.program, args, l.files, l.log); err != nil {
		qmpConn.Close()
		return nil, err
	}
	// QEMU has its own copies now. If ours stayed open, we would not see its end.
	for _, f := range l.files {
		f.Close()
	}
	l.files = nil
	return v, v.begin(ctx, qmpConn)
}

// giveSecret has the VM boot a copy of its initrd that brings the secret. Only this user can
// read it. remove removes it.
func (l *launch) giveSecret(secret vsocksecret.Secret) (remove func(), err error) {
	var initrd []byte
	if l.cfg.Initrd != "" {
		if initrd, err = os.ReadFile(l.cfg.Initrd); err != nil {
			return nil, err
		}
	}
	for len(initrd)%4 != 0 {
		initrd = append(initrd, 0)
	}
	cfg := *l.cfg
	cfg.Initrd = filepath.Join(cfg.Dir, "initrd")
	l.cfg = &cfg
	remove = func() { os.Remove(cfg.Initrd) }
	if err := os.WriteFile(cfg.Initrd, append(initrd, secret.Archive()...), 0o600); err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

// open makes the sockets that QEMU inherits.
func (l *launch) open(v *vm, opts Options, secret vsocksecret.Secret) (_ *net.UnixConn, err error) {
	l.facts.virtioConsole, l.facts.diskFormat = opts.VirtioConsole, opts.DiskFormat
	qmpConn, theirs, err := socketPair("qmp", unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			qmpConn.Close()
		}
	}()
	l.facts.qmpFD = l.inherit(theirs)
	if err := l.openNIC(v, opts.Framing); err != nil {
		return nil, err
	}
	backend, file, cid, err := openVSock(opts.VSock, secret, l.log)
	if err != nil {
		return nil, err
	}
	v.vsock = backend
	if l.facts.cid = cid; cid != 0 {
		l.facts.vhostFD = l.inherit(file)
	} else {
		l.facts.userFD = l.inherit(file)
	}
	return qmpConn, nil
}

// openNIC prepares the path for the network card's frames.
func (l *launch) openNIC(v *vm, framing virtionet.Framing) (err error) {
	switch nic := l.cfg.NIC; {
	case nic == nil:
	case nic.Attach != nil:
		v.card, l.facts.nicPath, err = openCard(nic, l.cfg.Dir, l.log)
	default:
		kind := unix.SOCK_STREAM
		if framing == virtionet.Datagram {
			kind = unix.SOCK_DGRAM
		}
		conn, theirs, err := socketPair("nic", kind)
		if err != nil {
			return err
		}
		v.nic, v.framing, l.facts.nicDatagrams = conn, framing, framing == virtionet.Datagram
		l.facts.nicFD = l.inherit(theirs)
	}
	return err
}
