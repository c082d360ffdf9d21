// Package hvtest supports tests of hypervisors and of code above them: [Fake], a driver whose
// guests are Go functions of the test, and [Conformance], which checks that a driver keeps
// the contract of package hypervisor.
//
// A test that needs a VM, but no hypervisor:
//
//	fake := &hvtest.Fake{Guest: func(g *hvtest.Guest) error {
//		l, err := g.Listen(1024)
//		if err != nil {
//			return err
//		}
//		return serve(l) // until the power is cut, which closes l
//	}}
//	vm, err := fake.Start(ctx, cfg)
//
// Everything works on every operating system, and nothing needs privileges.
package hvtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

var (
	_ hypervisor.Driver   = (*Fake)(nil)
	_ hypervisor.Sharer   = (*Fake)(nil)
	_ hypervisor.Examiner = (*Fake)(nil)
	_ hypervisor.VM       = (*VM)(nil)
	_ hypervisor.Paused   = (*VM)(nil)
	_ hypervisor.Pauser   = (*VM)(nil)
	_ hypervisor.Balloon  = (*VM)(nil)
	_ hypervisor.Driver   = (*CardlessFake)(nil)
	_ hypervisor.Cardless = (*CardlessFake)(nil)
)

// notAKernel is the start of a file that no driver takes for a kernel.
const notAKernel = "not a kernel\n"

// Fake is a driver that runs its guests in the process of the test. The zero value is ready:
// its guests speak the test protocol (package protocol). The fields may not change after the
// first start.
type Fake struct {
	// Guest is the guest: it is called in its own goroutine for each VM. Its return is the
	// power-off, or with an error the VM's death. It has to return soon after the power is
	// cut, which fails its connections and listeners and ends [Guest.Context]. Nil means
	// [EchoGuest].
	Guest func(*Guest) error
	// CheckErr is the result of Check.
	CheckErr error
	// StartErr makes Start fail, after the checks of cfg.
	StartErr error
	// NeverUp starts VMs whose guests never come up: dials wait.
	NeverUp bool
	// HostMemory is the most memory of a VM, in bytes; 0 means 1 TiB.
	HostMemory int64
	// Framing is how a card's frames follow each other.
	Framing virtionet.Framing

	mu  sync.Mutex
	vms []*VM
}

// Name is "fake".
func (f *Fake) Name() string { return "fake" }

// Check returns CheckErr.
func (f *Fake) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.CheckErr
}

// Examine returns CheckErr as the one requirement.
func (f *Fake) Examine(context.Context) []hypervisor.Requirement {
	return []hypervisor.Requirement{{Name: "fake", Found: "a fake hypervisor", Err: f.CheckErr}}
}

// VMs returns every VM that was started, the first one first.
func (f *Fake) VMs() []*VM {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*VM(nil), f.vms...)
}

// Start checks cfg as a real driver does and calls Guest. It refuses missing files, more
// memory than HostMemory, and a kernel that starts with "not a kernel".
func (f *Fake) Start(ctx context.Context, cfg hypervisor.Config) (hypervisor.VM, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	if err := f.check(&cfg); err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	if f.StartErr != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, f.StartErr)
	}
	console, err := os.Create(cfg.Console)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	guest := f.Guest
	if guest == nil {
		guest = EchoGuest
	}
	if f.NeverUp {
		guest = func(g *Guest) error { <-g.Context().Done(); return nil }
	}
	vm := newVM(cfg, console, f.NeverUp)
	f.mu.Lock()
	err = f.diskInUse(&cfg)
	if err == nil {
		f.vms = append(f.vms, vm)
	}
	f.mu.Unlock()
	if err != nil {
		console.Close()
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	go vm.run(guest, f.Framing)
	return vm, nil
}

func (f *Fake) check(cfg *hypervisor.Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	most := f.HostMemory
	if most == 0 {
		most = 1 << 40
	}
	if cfg.Memory > most {
		err := fmt.Errorf("not enough memory: the VM wants %d MiB, this machine has %d MiB", cfg.Memory>>20, most>>20)
		return hint.New(err, "give the VM less memory")
	}
	if cfg.Nested {
		return errors.New("a fake VM runs no VMs")
	}
	for _, s := range cfg.Shares {
		if err := f.CheckShare(s); err != nil {
			return err
		}
	}
	files := []string{cfg.Kernel}
	if cfg.Initrd != "" {
		files = append(files, cfg.Initrd)
	}
	for _, d := range cfg.Disks {
		files = append(files, d.Path)
	}
	for _, name := range files {
		if fi, err := os.Stat(name); err != nil {
			return err
		} else if fi.IsDir() {
			return &fs.PathError{Op: "open", Path: name, Err: errors.New("is a directory")}
		}
	}
	k, err := os.Open(cfg.Kernel)
	if err != nil {
		return err
	}
	defer k.Close()
	head := make([]byte, len(notAKernel))
	if _, err := io.ReadFull(k, head); err == nil && bytes.Equal(head, []byte(notAKernel)) {
		return fmt.Errorf("%s is no kernel", cfg.Kernel)
	}
	return nil
}

// diskInUse returns an error if a VM that runs may write to a disk of cfg, or cfg's to one of
// its.
func (f *Fake) diskInUse(cfg *hypervisor.Config) error {
	for _, vm := range f.vms {
		select {
		case <-vm.done:
			continue
		default:
		}
		for _, theirs := range vm.cfg.Disks {
			for _, ours := range cfg.Disks {
				if theirs.Path == ours.Path && !(theirs.ReadOnly && ours.ReadOnly) {
					return hint.New(fmt.Errorf("%w: %s", hypervisor.ErrDiskInUse, ours.Path), "stop the other VM first")
				}
			}
		}
	}
	return nil
}

// CheckShare wants a directory.
func (f *Fake) CheckShare(s hypervisor.Share) error {
	fi, err := os.Stat(s.Dir)
	if err == nil && !fi.IsDir() {
		err = &fs.PathError{Op: "share", Path: s.Dir, Err: errors.New("not a directory")}
	}
	return err
}

// CardlessFake is a [Fake] that has no network card to give.
type CardlessFake struct{ Fake }

// NoCard says that there is none.
func (f *CardlessFake) NoCard() error { return errors.New("this fake has no network card") }

// Start refuses a network card, else it is [Fake.Start].
func (f *CardlessFake) Start(ctx context.Context, cfg hypervisor.Config) (hypervisor.VM, error) {
	if cfg.NIC != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, f.NoCard())
	}
	return f.Fake.Start(ctx, cfg)
}
