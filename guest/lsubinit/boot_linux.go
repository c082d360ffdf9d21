package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"sync"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/vsocksecret"
)

// boot brings the VM up and serves it. Its steps:
//
//  1. mounts     the kernel's file systems, and a root for pivot_root; the console's module,
//     if it has one
//  2. vsock      the modules for the connection to the host
//  3. network    its module, or a card of our own; eth0 and lo, kernel settings
//  4. beside 2 and 3, disk: modules, the system image, the data disk (made on
//     first boot); then Rosetta, if a Mac shares it
//  5. hello      the first message to the host: "I serve", or the error
//  6. serve      until the host asks to power off
//
// The VM ends if step 1 or 2 fails. Errors of the later steps are reported to the host.
func boot(log *slog.Logger) error {
	t := newTrace()
	secret, err := vsocksecret.Take("/") // before another root covers it
	if err != nil {
		return err
	}
	if err := t.step("mounts", mountBase); err != nil {
		return err
	}
	processors := func() {
		if err := t.step("processors", onlineProcessors); err != nil {
			log.Warn("a processor stays off", "err", err)
		}
	}
	if !nestedEmulated() {
		processors()
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	args, argErr := guest.ParseBootArgs(string(cmdline))
	order, err := readOrder()
	if err != nil {
		return err
	}
	if err := openConsole(string(cmdline), order); err != nil {
		log.Warn("there is no console", "err", err)
	}
	if len(args.Disks) > 0 { // only Hyper-V's disks have no serials
		if err := t.step("Hyper-V modules", func() error { return order.load("hyperv") }); err != nil {
			return err
		}
	}
	var disk sync.WaitGroup
	var diskErr error
	disk.Go(func() {
		diskErr = t.step("disk modules", func() error { return order.load("disk") })
		if diskErr == nil {
			diskErr = mountDisks(args.Disks, t, log)
		}
	})
	vsockErr := t.step("vsock modules", func() error { return order.load("vsock") })
	netErr := t.step("network modules", func() error { return order.load("net") })
	if netErr == nil && args.CardMAC != nil {
		netErr = t.step("network card", func() error { return makeCard(args.CardMAC, order, log) })
	}
	if netErr == nil {
		netErr = t.step("network", func() error { return setUpNetwork(args) })
	}
	disk.Wait()
	if nestedEmulated() && diskErr == nil {
		if err := t.step("nested VMs", holdVM); err != nil {
			log.Warn("a VM that starts in a distro may crash this one", "err", err)
		}
		processors()
	}
	if vsockErr != nil {
		return vsockErr
	}
	if runtime.GOARCH == "arm64" && diskErr == nil { // its modules are on the system disk
		if err := offerRosetta(); err != nil {
			log.Warn("programs for x86-64 do not run through Rosetta", "err", err)
		}
	}

	a, err := openAgent(args, secret, t, log, errors.Join(argErr, diskErr, netErr))
	if err != nil {
		sayHello(t, err)
		return err
	}
	return serve(a, secret, t, log)
}

// openAgent opens the agent, unless an earlier step failed.
func openAgent(args guest.BootArgs, secret vsocksecret.Secret, t *trace, log *slog.Logger, before error) (*agent.Agent, error) {
	if before != nil {
		return nil, before
	}
	var a *agent.Agent
	err := t.step("agent", func() (err error) {
		a, err = agent.Open(agent.Config{
			Version: guest.Version, Kernel: kernelRelease(), Data: dataDir,
			Modules: modulesDir, Network: vmNetwork(args), Search: args.Search, Shared: sharedDir, Host: hostDir, Tools: "/tools", Idle: args.Idle, Boot: t.steps(), Secret: secret,
			PowerOff: func() { unmountData(log); powerOff() }, Logger: log,
		})
		return err
	})
	return a, err
}

// serve listens, says hello and serves until a listener fails.
func serve(a *agent.Agent, secret vsocksecret.Secret, t *trace, log *slog.Logger) error {
	control, err := vsock.Listen(guest.ControlPort, nil)
	if err != nil {
		return err
	}
	streams, err := vsock.Listen(guest.StreamPort, nil)
	if err != nil {
		return err
	}
	forwards, err := listen(guest.ForwardPort)
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	go func() { failed <- a.ServeControl(secret.Listener(agent.FromHost(control, log))) }()
	go func() { failed <- a.ServeStreams(secret.Listener(agent.FromHost(streams, log))) }()
	go func() { failed <- a.ServeForwards(forwards) }()
	go func() {
		if err := a.WatchCard(context.Background()); err != nil {
			log.Warn("the network card is not watched any more", "err", err)
		}
	}()
	if err := sayHello(t, nil); err != nil {
		return err
	}
	for {
		// The control server ends when the agent powers off the VM.
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	}
}

// listen listens on a vsock port, and returns the file descriptor of the socket.
func listen(port uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return -1, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return fd, nil
}

// sayHello tells the host that the agent serves, or why it does not.
func sayHello(t *trace, failure error) error {
	m := &guestv1.Hello{Version: guest.Version, Kernel: kernelRelease(), Boot: t.steps()}
	if failure != nil {
		m.Error = failure.Error()
	}
	conn, err := vsock.Dial(vsock.Host, guest.HelloPort, nil)
	if err != nil {
		return fmt.Errorf("say hello to the host: %w", err)
	}
	defer conn.Close()
	return guest.NewWriter(conn).SendMessage(guest.FrameHello, m)
}

func kernelRelease() string {
	var uts unix.Utsname
	unix.Uname(&uts)
	return unix.ByteSliceToString(uts.Release[:])
}

// trace records the durations of the boot's steps.
type trace struct {
	mu   sync.Mutex
	list []*guestv1.BootStep
}

// newTrace starts with the kernel's own time.
func newTrace() *trace {
	return &trace{list: []*guestv1.BootStep{{Name: "kernel", DurationNs: sinceBoot()}}}
}

func (t *trace) step(name string, f func() error) error {
	start := sinceBoot()
	err := f()
	t.mu.Lock()
	t.list = append(t.list, &guestv1.BootStep{Name: name, StartNs: start, DurationNs: sinceBoot() - start})
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (t *trace) steps() []*guestv1.BootStep {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*guestv1.BootStep(nil), t.list...)
}

// sinceBoot returns the time since the kernel's start in nanoseconds.
func sinceBoot() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}
