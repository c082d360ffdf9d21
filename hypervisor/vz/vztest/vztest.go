// Package vztest stands in for Apple's Virtualization.framework, on any system:
//
//	driver := vz.NewWith(&vztest.Framework{Engine: engine, Mac: vztest.Mac()}, vz.Options{})
//
// Its machines are VMs of another driver, the engine: [hvtest.Fake] for fast tests, QEMU for
// the real guest. The engine's frames have to be datagrams. A machine has the framework's
// shapes and its habits, bad ones included: streams that cannot be half closed, listeners whose
// Accept does not return, dials that are refused while the guest boots, errors in Apple's words
// and with Apple's numbers.
//
// [hvtest.Fake]: https://pkg.go.dev/github.com/lsub/lsub/hypervisor/hvtest#Fake
package vztest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/vz"
)

var (
	_ vz.Framework = (*Framework)(nil)
	_ vz.Machine   = (*Machine)(nil)
	_ vz.Saving    = (*savingMachine)(nil)
)

// Mac returns the facts of a recent Mac. Its VMs boot every kernel.
func Mac() vz.Facts {
	return vz.Facts{
		Version: "15.1", Supported: true, MaxCPUs: 64, MaxMemory: 1 << 40,
		Kernels: []vz.KernelFormat{vz.KernelELF, vz.KernelImage, vz.KernelBzImage},
	}
}

// Framework is a [vz.Framework]. Its fields may not change after its first use.
type Framework struct {
	Engine hypervisor.Driver
	Mac    vz.Facts
	// CheckErr, NewErr and StartErr are what Check, NewMachine and a machine's Start fail with.
	CheckErr, NewErr, StartErr error
	// Hang makes a machine's Start wait until it is stopped, or for ever.
	Hang bool
	// Refusals is how many dials of each machine are refused, as while a guest boots.
	Refusals int
	// Saves tells whether machines can be saved. The state of one is kept in this process.
	Saves bool
	// KeepConsole leaves the kernel's arguments for the console to the engine's guest. It needs
	// an engine whose guest has a virtio console.
	KeepConsole bool

	mu       sync.Mutex
	machines []*Machine
	saved    map[string]hypervisor.VM // by identifier
}

// Facts returns Mac.
func (f *Framework) Facts() vz.Facts { return f.Mac }

// Check returns CheckErr.
func (f *Framework) Check() error { return f.CheckErr }

// Machines returns all machines, the first one first.
func (f *Framework) Machines() []*Machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Machine(nil), f.machines...)
}

// NewMachine makes a machine of the engine's.
func (f *Framework) NewMachine(s *vz.Settings) (vz.Machine, error) {
	if f.NewErr != nil {
		if s.Card != nil {
			s.Card.File.Close()
		}
		return nil, f.NewErr
	}
	m := &Machine{
		framework: f, settings: s, states: make(chan vz.State, 1000), refusals: f.Refusals, id: s.MachineIdentifier,
		stopped: make(chan struct{}),
	}
	if m.id == nil {
		m.id = []byte(rand.Text())
	}
	if s.Card != nil {
		conn, err := net.FileConn(s.Card.File)
		s.Card.File.Close() // FileConn has its own copy
		if err != nil {
			return nil, err
		}
		m.card = conn
	}
	f.mu.Lock()
	f.machines = append(f.machines, m)
	f.mu.Unlock()
	if f.Saves {
		return &savingMachine{m}, nil
	}
	return m, nil
}

// Machine is a [vz.Machine].
type Machine struct {
	framework *Framework
	settings  *vz.Settings
	states    chan vz.State
	stopped   chan struct{} // closed by Stop
	card      net.Conn      // the framework's end of the card's frames
	id        []byte

	// BeforeResume is called by each Resume, if it is not nil.
	BeforeResume func()

	mu       sync.Mutex
	state    vz.State
	vm       hypervisor.VM
	saved    bool // its VM outlives it
	refusals int
}

// savingMachine is a machine that can be saved.
type savingMachine struct{ *Machine }

// Settings returns what the machine was made of.
func (m *Machine) Settings() *vz.Settings { return m.settings }

// VM returns the engine's VM; nil before the machine was started.
func (m *Machine) VM() hypervisor.VM {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.vm
}

// States returns the machine's states.
func (m *Machine) States() <-chan vz.State { return m.states }

func (m *Machine) set(s vz.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	m.states <- s
}

// wrongState is the framework's error for an operation that the state does not allow.
func wrongState(s vz.State) error {
	return &vz.Error{Domain: "VZErrorDomain", Code: 4, Description: "Invalid virtual machine state transition. The machine is " + s.String() + "."}
}

// in returns an error unless the machine is in a state.
func (m *Machine) in(want vz.State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != want {
		return wrongState(m.state)
	}
	return nil
}

// Start starts the engine's VM.
func (m *Machine) Start() error {
	if err := m.in(vz.StateStopped); err != nil {
		return err
	}
	m.set(vz.StateStarting)
	if m.framework.Hang {
		<-m.stopped
		return &vz.Error{Domain: "VZErrorDomain", Code: 9, Description: "The operation was cancelled."}
	}
	vm, err := m.start()
	if err != nil {
		m.set(vz.StateStopped)
		return err
	}
	m.mu.Lock()
	m.vm = vm
	m.mu.Unlock()
	m.set(vz.StateRunning)
	go m.follow(vm)
	return nil
}

func (m *Machine) start() (hypervisor.VM, error) {
	if err := m.framework.StartErr; err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vz")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	vm, err := m.framework.Engine.Start(ctx, m.config(dir))
	if err != nil {
		os.RemoveAll(dir)
		return nil, appleError(err)
	}
	go func() {
		vm.Wait()
		os.RemoveAll(dir)
	}()
	return vm, nil
}

// config is the engine's description of the same machine.
func (m *Machine) config(dir string) hypervisor.Config {
	s := m.settings
	cfg := hypervisor.Config{
		Name: "vz", Dir: dir, Kernel: s.Kernel, Initrd: s.Initrd, Cmdline: s.CommandLine,
		CPUs: int(s.CPUs), Memory: int64(s.Memory), Console: s.Console, Nested: s.Nested,
	}
	if !m.framework.KeepConsole {
		cfg.Cmdline = strings.TrimSpace(strings.TrimPrefix(cfg.Cmdline, "console=hvc0 panic=-1"))
	}
	for _, d := range s.Disks {
		cfg.Disks = append(cfg.Disks, hypervisor.Disk{Path: d.Path, ReadOnly: d.ReadOnly, Serial: d.Identifier})
	}
	for _, share := range s.Shares {
		cfg.Shares = append(cfg.Shares, hypervisor.Share{Tag: share.Tag, Dir: share.Dir, ReadOnly: share.ReadOnly})
	}
	if s.Card != nil {
		mac, _ := net.ParseMAC(s.Card.MAC)
		cfg.NIC = &hypervisor.NIC{MAC: mac, MTU: s.Card.MTU, Serve: m.serveCard}
	}
	return cfg
}

// appleError says in Apple's words why a VM did not start.
func appleError(err error) error {
	e := &vz.Error{Domain: "VZErrorDomain", Code: 1, Description: "Internal Virtualization error. The virtual machine failed to start.", Details: err.Error()}
	if errors.Is(err, hypervisor.ErrDiskInUse) {
		e.Code, e.Description = 2, "Invalid virtual machine configuration. The storage device attachment is invalid."
	}
	return e
}

// follow waits for the VM's end.
func (m *Machine) follow(vm hypervisor.VM) {
	end := vz.StateStopped
	if err := vm.Wait(); err != nil {
		end = vz.StateError
	}
	m.mu.Lock()
	gone := m.saved && m.vm == nil
	m.mu.Unlock()
	if !gone {
		m.finish(end)
	}
}

func (m *Machine) finish(end vz.State) {
	if m.card != nil {
		m.card.Close()
	}
	m.set(end)
}

// Stop ends the VM. One that was saved goes on, paused, for Restore.
func (m *Machine) Stop() error {
	m.mu.Lock()
	vm, saved, state := m.vm, m.saved, m.state
	if saved {
		m.vm = nil
	}
	m.mu.Unlock()
	if state == vz.StateStarting && m.framework.Hang {
		close(m.stopped)
		return nil
	}
	if vm == nil || state != vz.StateRunning && state != vz.StatePaused {
		return wrongState(state)
	}
	m.set(vz.StateStopping)
	if saved {
		m.finish(vz.StateStopped)
		return nil
	}
	return vm.Close()
}

// Pause pauses the VM.
func (m *Machine) Pause() error {
	return m.change(vz.StateRunning, vz.StatePausing, vz.StatePaused, hypervisor.Pauser.Pause)
}

// Resume resumes the VM.
func (m *Machine) Resume() error {
	if m.BeforeResume != nil {
		m.BeforeResume()
	}
	return m.change(vz.StatePaused, vz.StateResuming, vz.StateRunning, hypervisor.Pauser.Resume)
}

func (m *Machine) change(from, over, to vz.State, do func(hypervisor.Pauser, context.Context) error) error {
	if err := m.in(from); err != nil {
		return err
	}
	m.set(over)
	p, ok := m.VM().(hypervisor.Pauser)
	if !ok {
		return fmt.Errorf("the engine %s cannot pause", m.framework.Engine.Name())
	}
	if err := do(p, context.Background()); err != nil {
		m.mu.Lock()
		m.state = from
		m.mu.Unlock()
		return appleError(err)
	}
	m.set(to)
	return nil
}

// SetMemory passes the size to the engine's balloon, if it has one.
func (m *Machine) SetMemory(size uint64) {
	if b, ok := m.VM().(hypervisor.Balloon); ok {
		b.SetMemory(context.Background(), int64(size))
	}
}

// Save keeps the VM, and writes a file to find it by.
func (m *savingMachine) Save(path string) error {
	if err := m.in(vz.StatePaused); err != nil {
		return err
	}
	f := m.framework
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saved == nil {
		f.saved = map[string]hypervisor.VM{}
	}
	f.saved[string(m.id)] = m.VM()
	m.mu.Lock()
	m.saved = true
	m.mu.Unlock()
	return os.WriteFile(path, m.id, 0o600)
}

// Restore takes over the VM that was saved. It has no network card any more.
func (m *savingMachine) Restore(path string) error {
	if _, err := os.Stat(path); err != nil {
		return &vz.Error{Domain: "VZErrorDomain", Code: 12, Description: "The restore has failed.", Details: err.Error()}
	}
	f := m.framework
	f.mu.Lock()
	vm := f.saved[string(m.id)]
	delete(f.saved, string(m.id))
	f.mu.Unlock()
	if vm == nil {
		return &vz.Error{Domain: "VZErrorDomain", Code: 12, Description: "The restore has failed.", Details: "the state is of another machine"}
	}
	m.mu.Lock()
	m.vm = vm
	m.mu.Unlock()
	m.set(vz.StateRestoring)
	m.set(vz.StatePaused)
	go m.follow(vm)
	return nil
}

// Identifier names the machine.
func (m *savingMachine) Identifier() []byte { return m.id }
