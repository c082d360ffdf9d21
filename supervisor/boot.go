package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lsub/lsub/machine"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// diskSizes are tried in turn for the data disk, in bytes: not every file
// system takes the first. The file is sparse and holds what was written.
var diskSizes = []int64{1 << 40, 256 << 30, 64 << 30}

// consoleLines is how many of the console's last lines an error shows.
const consoleLines = 15

// start boots the VM. When it fails, nothing is left running.
func (s *supervisor) start(ctx context.Context) (guestIO, error) {
	if err := s.Driver.Check(ctx); err != nil {
		return nil, err
	}
	s.Reporter.Stage("preparing the VM")
	reg, err := s.m.Registry()
	if err != nil {
		return nil, err
	}
	if err := s.makeDisk(reg); err != nil {
		return nil, err
	}
	files, err := s.Guest(ctx)
	if err != nil {
		return nil, err
	}
	var network Network
	if s.Network != nil {
		if network, err = s.Network(); err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
	}
	cfg, err := s.vmConfig(files, network)
	if err != nil {
		return nil, err
	}
	s.trace.step("prepare")

	ctx, cancel := context.WithTimeout(ctx, s.BootTimeout)
	defer cancel()
	vm, err := s.boot(ctx, cfg, network, reg)
	if errors.Is(err, hypervisor.ErrGuestCrashed) && ctx.Err() == nil {
		// Nothing was asked of it yet, so nothing is lost by another try, and
		// kernels under software emulation are known to crash now and then.
		s.log.Warn("the VM's kernel has crashed while it booted; boot it once more", "err", err)
		s.Reporter.Warn("the VM's kernel crashed while it booted; it is booted once more")
		vm, err = s.boot(ctx, cfg, network, reg)
	}
	return vm, err
}

// boot starts the VM and waits for its guest. When it fails, nothing is left running.
func (s *supervisor) boot(ctx context.Context, cfg hypervisor.Config, network Network, reg *machine.Registry) (guestIO, error) {
	s.Reporter.Stage("booting the VM")
	if err := os.Rename(cfg.Console, cfg.Console+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	driven, err := s.startDriver(ctx, cfg)
	if err != nil {
		return nil, err
	}
	vm := localIO{driven, network}
	s.trace.step("start the hypervisor")
	if network != nil && cfg.NIC == nil {
		err = s.serveCard(ctx, vm, network)
	}
	if err == nil {
		err = s.awaitGuest(ctx, vm)
	}
	if err == nil {
		err = s.reconcile(ctx, vm, reg)
	}
	if err != nil {
		vm.Close()
		return nil, err
	}
	return vm, nil
}

// diskWait is how long a VM that was killed may take to let go of its disk.
const diskWait = 30 * time.Second

// startDriver starts the VM, as soon as the one before it has let go of the disk.
func (s *supervisor) startDriver(ctx context.Context, cfg hypervisor.Config) (hypervisor.VM, error) {
	for begin := time.Now(); ; {
		vm, err := s.Driver.Start(ctx, cfg)
		if !errors.Is(err, hypervisor.ErrDiskInUse) || time.Since(begin) > diskWait {
			return vm, err
		}
		s.Reporter.Stage("waiting for the last VM to let go of its disk")
		select {
		case <-time.After(250 * time.Millisecond): // nothing tells of it
		case <-ctx.Done():
			return nil, err
		}
	}
}

// makeDisk makes the data disk where there is none.
func (s *supervisor) makeDisk(reg *machine.Registry) error {
	path := s.m.DataDisk()
	_, err := os.Stat(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if n := len(reg.Distros); n > 0 {
		return hint.New(fmt.Errorf("the data disk %s is gone, and %d installed distros with it", path, n),
			"put it back, or forget the distros with 'lsub unregister NAME'")
	}
	tmp := filepath.Join(s.m.Dir(), ".data.img.new") // the lock of the supervisor keeps others out
	for _, size := range diskSizes {
		if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err = s.newDisk(tmp, size); err == nil {
			break
		}
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("make the data disk: %w", err)
	}
	return nil
}

// newDisk makes an empty disk in the form that the driver takes.
func (s *supervisor) newDisk(path string, size int64) error {
	if m, ok := s.Driver.(hypervisor.DiskMaker); ok {
		return m.MakeDisk(path, size)
	}
	return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
}

func (s *supervisor) vmConfig(files GuestFiles, network Network) (hypervisor.Config, error) {
	dir, err := s.m.RuntimeDir()
	if err != nil {
		return hypervisor.Config{}, err
	}
	dir = filepath.Join(dir, "vm")
	if err := machine.MakePrivate(dir); err != nil {
		return hypervisor.Config{}, err
	}
	cfg := hypervisor.Config{
		Name: "lsub-" + s.Profile, Dir: dir,
		Kernel: files.Kernel, Initrd: files.Initrd,
		CPUs: s.CPUs, Memory: s.Memory, Nested: s.Nested,
		Disks: []hypervisor.Disk{
			{Path: files.System, ReadOnly: true, Serial: guest.SystemDisk},
			{Path: s.m.DataDisk(), Serial: guest.DataDisk},
		},
		Console: s.m.ConsoleLog(), Logger: s.log,
	}
	var args guest.BootArgs
	if network != nil {
		args = network.BootArgs()
		if s.cardless() {
			args.CardMAC = network.MAC()
		} else {
			cfg.NIC = &hypervisor.NIC{MAC: network.MAC(), MTU: args.MTU, Serve: network.Serve, Attach: network.Attach}
		}
	}
	args.Idle = s.DistroIdle
	// Every line on the console and every self-test of the kernel's cryptography
	// costs time under software emulation.
	cfg.Cmdline = strings.TrimSpace("quiet cryptomgr.notests " + args.Cmdline())
	return cfg, nil
}

// awaitGuest returns when the agent has said that it serves.
func (s *supervisor) awaitGuest(ctx context.Context, vm hypervisor.VM) error {
	hello, err := s.waitHello(ctx, vm)
	if errors.Is(err, net.ErrClosed) && ctx.Err() == nil { // by the end of the VM
		err = fmt.Errorf("the VM ended while it booted: %w", orPoweroff(vm.Wait()))
	}
	if err != nil {
		return s.bootError(ctx, err)
	}
	if hello.Error != "" {
		return s.bootError(ctx, fmt.Errorf("the VM does not come up: %s", hello.Error))
	}
	if hello.Version != s.Version {
		s.log.Warn("the guest is of another version", "guest", hello.Version, "host", s.Version)
	}
	s.trace.guest(hello.Boot)
	s.log.Info("the guest serves", "kernel", hello.Kernel)
	return nil
}

// waitHello listens until the guest has spoken, the VM is gone (net.ErrClosed) or
// ctx is done.
func (s *supervisor) waitHello(ctx context.Context, vm hypervisor.VM) (*guestv1.Hello, error) {
	ln, err := vm.Listen(ctx, guest.HelloPort)
	if err != nil {
		return nil, fmt.Errorf("listen for the guest: %w", err)
	}
	defer ln.Close()
	gone := make(chan struct{})
	go func() {
		vm.Wait()
		close(gone)
	}()
	var hello *guestv1.Hello
	heard := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		var err error
		hello, err = readHello(ctx, ln)
		heard <- err
	}()
	select {
	case err := <-heard:
		return hello, err
	case <-gone:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	cancel()
	ln.Close()
	<-heard
	return nil, err
}

func orPoweroff(err error) error {
	if err == nil {
		return errors.New("it powered off")
	}
	return err
}

func readHello(ctx context.Context, ln net.Listener) (*guestv1.Hello, error) {
	conn, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	hello := &guestv1.Hello{}
	if err := guest.NewReader(conn).Expect(guest.FrameHello, hello); err != nil {
		return nil, fmt.Errorf("the guest's first word: %w", err)
	}
	return hello, nil
}

// bootError adds the console's last lines to what went wrong.
func (s *supervisor) bootError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("the VM did not come up within %v", s.BootTimeout)
		} else {
			err = errors.New("the start was cut short")
		}
	}
	advice := hint.Of(err)
	if advice == "" {
		advice = "see 'lsub logs' for the whole console"
	}
	if tail := machine.Tail(s.m.ConsoleLog(), consoleLines, 0); tail != "" {
		err = fmt.Errorf("%w; its console ends with:\n%s", err, tail)
	} else {
		err = fmt.Errorf("%w; its console is empty", err)
	}
	return hint.New(err, advice)
}

// trace is what a start did, and how long each step took. It is complete
// before anybody else reads it.
type trace struct {
	begin time.Time
	last  time.Duration
	steps []*guestv1.BootStep
}

func (t *trace) total() time.Duration { return time.Since(t.begin).Round(time.Millisecond) }

// step ends a step of the host.
func (t *trace) step(name string) {
	now := time.Since(t.begin)
	t.steps = append(t.steps, &guestv1.BootStep{Name: name, StartNs: int64(t.last), DurationNs: int64(now - t.last)})
	t.last = now
}

// guest adds the guest's own steps. Its clock starts with the kernel; its last
// step ended when it spoke, which is now.
func (t *trace) guest(steps []*guestv1.BootStep) {
	t.step("boot")
	var end int64
	for _, s := range steps {
		end = max(end, s.StartNs+s.DurationNs)
	}
	for _, s := range steps {
		t.steps = append(t.steps, &guestv1.BootStep{
			Name: "guest: " + s.Name, StartNs: int64(t.last) - end + s.StartNs, DurationNs: s.DurationNs,
		})
	}
}
