package hvtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

// VM is a VM of [Fake].
type VM struct {
	cfg     hypervisor.Config
	console *os.File
	never   bool // the guest never comes up
	ports   *ports
	power   context.Context // done when the power is cut
	off     context.CancelFunc
	done    chan struct{} // closed when everything has ended

	mu      sync.Mutex
	dead    bool
	err     error // why the VM died; read it after done
	paused  error
	resumed chan struct{} // closed when the pause ends
	nic     net.Conn      // the guest's end
	framing virtionet.Framing
	memory  int64         // as SetMemory wants; 0 before it was called
	sized   chan struct{} // closed and replaced at each change of memory
}

func newVM(cfg hypervisor.Config, console *os.File, never bool) *VM {
	power, off := context.WithCancel(context.Background())
	return &VM{
		cfg: cfg, console: console, never: never, ports: newPorts(),
		power: power, off: off, done: make(chan struct{}), sized: make(chan struct{}),
	}
}

// run is the life of the VM. It owns all its goroutines.
func (vm *VM) run(guest func(*Guest) error, framing virtionet.Framing) {
	defer close(vm.done)
	var nic sync.WaitGroup
	if n := vm.cfg.NIC; n != nil {
		var host, card net.Conn
		host, card = newPipe(Addr{CID: hostCID}, Addr{CID: guestCID}, func() {}, func() {})
		if framing == virtionet.Datagram {
			host, card = net.Pipe() // which keeps writes apart, if the reader has room for a whole one
		}
		vm.mu.Lock()
		vm.nic, vm.framing = card, framing
		vm.mu.Unlock()
		nic.Go(func() {
			defer host.Close()
			if err := n.Serve(vm.power, host, framing); err != nil && vm.power.Err() == nil {
				vm.cfg.Logger.Warn("the network of the VM has failed", "vm", vm.cfg.Name, "err", err)
			}
		})
	}
	vm.cut(guest(&Guest{vm}))
	if vm.nic != nil {
		vm.nic.Close()
	}
	nic.Wait()
	vm.console.Close()
}

// cut cuts the power. The first call sets the reason.
func (vm *VM) cut(err error) {
	vm.mu.Lock()
	first := !vm.dead
	if first {
		vm.dead, vm.err = true, err
	}
	vm.mu.Unlock()
	if first {
		vm.off()
		vm.ports.close()
	}
}

// Config returns the configuration with which the VM was started.
func (vm *VM) Config() hypervisor.Config { return vm.cfg }

// Die makes the VM die by itself, as after a crash of its hypervisor: Wait returns an error
// that wraps err. It does not wait. A VM that is gone stays as it is.
func (vm *VM) Die(err error) {
	if err == nil {
		err = errors.New("crashed")
	}
	vm.cut(err)
}

// SetPaused pauses the VM with a reason, or resumes it if err is nil. A paused VM accepts no
// dial, but its guest function continues.
func (vm *VM) SetPaused(err error) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.paused == nil && err != nil {
		vm.resumed = make(chan struct{})
	}
	if vm.paused != nil && err == nil {
		close(vm.resumed)
	}
	vm.paused = err
}

// Pause is [VM.SetPaused] with [hypervisor.ErrPaused].
func (vm *VM) Pause(ctx context.Context) error {
	if err := vm.usable(ctx); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	vm.SetPaused(hypervisor.ErrPaused)
	return nil
}

// Resume ends a pause.
func (vm *VM) Resume(ctx context.Context) error {
	if err := vm.usable(ctx); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	vm.SetPaused(nil)
	return nil
}

// usable returns why nothing can be asked of the VM, or nil.
func (vm *VM) usable(ctx context.Context) error {
	if vm.power.Err() != nil {
		return net.ErrClosed
	}
	return ctx.Err()
}

// SetMemory is a wish that [VM.Memory] returns.
func (vm *VM) SetMemory(_ context.Context, size int64) error {
	if size <= 0 || size > vm.cfg.Memory {
		return fmt.Errorf("%d bytes of memory are not within the VM's %d", size, vm.cfg.Memory)
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.memory = size
	close(vm.sized)
	vm.sized = make(chan struct{})
	return nil
}

// Memory returns the last argument of [VM.SetMemory], or all of the VM's memory.
func (vm *VM) Memory() int64 {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.memory == 0 {
		return vm.cfg.Memory
	}
	return vm.memory
}

// awaitMemory waits until the guest has to make do with size bytes.
func (vm *VM) awaitMemory(size int64) error {
	for {
		vm.mu.Lock()
		sized := vm.sized
		vm.mu.Unlock()
		if vm.Memory() <= size {
			return nil
		}
		select {
		case <-sized:
		case <-vm.power.Done():
			return net.ErrClosed
		}
	}
}

// Paused returns the last argument of [VM.SetPaused].
func (vm *VM) Paused() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.paused
}

// Dial opens a stream to a port where the guest listens.
func (vm *VM) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	to := Addr{guestCID, port}
	vm.mu.Lock()
	var wait <-chan struct{}
	if vm.paused != nil {
		wait = vm.resumed
	}
	if vm.never {
		wait = make(chan struct{})
	}
	vm.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-vm.power.Done():
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, opError("dial", to, err)
	}
	return vm.ports.dial(hostCID, to)
}

// Listen accepts the streams that the guest opens to the host's port.
func (vm *VM) Listen(ctx context.Context, port uint32) (net.Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, opError("listen", Addr{hostCID, port}, err)
	}
	return vm.ports.listen(Addr{hostCID, port})
}

// Wait blocks until the VM is gone.
func (vm *VM) Wait() error {
	<-vm.done
	if vm.err != nil {
		return fmt.Errorf("vm %s: %w", vm.cfg.Name, vm.err)
	}
	return nil
}

// Close cuts the power and waits until the guest function has returned. The guest function
// may not call it.
func (vm *VM) Close() error {
	vm.cut(nil)
	<-vm.done
	return nil
}

// Guest is the view of a VM for its guest function. It is safe for concurrent use.
type Guest struct{ vm *VM }

// Context ends when the power is cut.
func (g *Guest) Context() context.Context { return g.vm.power }

// Config returns the configuration with which the VM was started.
func (g *Guest) Config() hypervisor.Config { return g.vm.cfg }

// Listen accepts the streams that the host opens to the port.
func (g *Guest) Listen(port uint32) (net.Listener, error) {
	return g.vm.ports.listen(Addr{guestCID, port})
}

// Dial opens a stream to a port of the host. If nobody listens there, it fails with
// [syscall.ECONNREFUSED]; see [Guest.AwaitHost].
func (g *Guest) Dial(port uint32) (net.Conn, error) {
	return g.vm.ports.dial(guestCID, Addr{hostCID, port})
}

// AwaitHost blocks until the host listens at the port, or the power is cut. A real guest
// boots so slowly that the host listens before; here the guest may be first.
func (g *Guest) AwaitHost(port uint32) error {
	return g.vm.ports.await(g.vm.power, Addr{hostCID, port})
}

// Console writes to the console file of the VM's Config.
func (g *Guest) Console() io.Writer { return g.vm.console }

// NIC is the guest's end of the network card, framed as [Fake].Framing says; nil in a VM
// without a card. The end of the VM closes it.
func (g *Guest) NIC() net.Conn {
	g.vm.mu.Lock()
	defer g.vm.mu.Unlock()
	if g.vm.nic == nil {
		return nil
	}
	return g.vm.nic
}
