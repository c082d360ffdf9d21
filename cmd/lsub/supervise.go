package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// superviseCommand is what a command starts in the background to have a VM.
// Users do not call it.
func (a *app) superviseCommand() *cli.Command {
	return &cli.Command{
		Name: "supervise", Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "home", Required: true},
			&cli.StringFlag{Name: "runtime", Required: true},
			&cli.StringFlag{Name: "cache", Required: true},
			&cli.Uint64Flag{Name: "ready-fd"},
		},
		Action: func(c *cli.Context) error {
			log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: a.level}))
			cfg := machine.Supervision{
				Config: machine.Config{
					Profile: c.String("profile"),
					Paths:   machine.Paths{Home: c.String("home"), Runtime: c.String("runtime"), Cache: c.String("cache")},
					Version: a.version, Logger: log,
				},
				BootTimeout: a.bootTimeout,
			}
			if fd := c.Uint64("ready-fd"); fd > 0 {
				cfg.Reporter = machine.NewReporter(uintptr(fd))
			}
			if err := a.equip(&cfg, log); err != nil {
				cfg.Reporter.Fail(err)
				return err
			}
			leaveProcessors()
			return machine.Supervise(c.Context, cfg)
		},
	}
}

// leaveProcessors has the supervisor's goroutines keep to half of the processors. It
// has little to do, and often: with all of them, Go's scheduler wakes more threads than
// there is work for, on those that the VM runs on. On two, a byte took a sixth longer to
// a port and back.
func leaveProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2))
	}
}

// equip gives the supervisor what it works with.
func (a *app) equip(cfg *machine.Supervision, log *slog.Logger) error {
	m, err := machine.Open(cfg.Config)
	if err != nil {
		return err
	}
	p, err := m.LoadProfile()
	if err != nil {
		return err
	}
	if err := placeDistros(context.Background(), m, p); err != nil {
		return err
	}
	if cfg.Memory, err = vmMemory(os.Getenv("LSUB_MEMORY"), p); err != nil {
		return err
	}
	cfg.CPUs = vmCPUs(p, log)
	cfg.Idle, cfg.DistroIdle = p.Idle.VM, p.Idle.Distro
	cfg.DistroEnv = p.Network.ProxyEnv(os.Getenv)
	own, way := &addresses{machine: m}, &direct{log: log}
	if cfg.Forwarder, err = newForwarder(p, m, own, way, log); err != nil {
		return err
	}
	warn := slog.New(warnings{log.Handler(), cfg.Reporter})
	if cfg.Driver, err = a.driver(warn); err != nil {
		return err
	}
	cfg.Guest = func(ctx context.Context) (machine.GuestFiles, error) { return a.guest(ctx, cfg.Paths.Cache) }
	if a.network != nil {
		cfg.Network = func() (machine.Network, error) { return a.network(m, p, own, way, log, warn) }
	}
	return nil
}

// distroNames returns what returns the names of a machine's distros by id.
func distroNames(m *machine.Machine) func() map[string]string {
	return func() map[string]string {
		names := map[string]string{}
		reg, err := m.Registry()
		if err != nil {
			return names // nothing is forwarded that the user may not have asked for
		}
		for _, d := range reg.Distros {
			names[d.ID] = d.Name
		}
		return names
	}
}

// vmCPUs returns how many CPUs the VM has: a profile may come from a larger machine.
func vmCPUs(p *profile.Profile, log *slog.Logger) int {
	host := runtime.NumCPU()
	if p.CPUs > host {
		log.Warn("the VM gets all CPUs of this machine, which has fewer than the profile says", "cpus", host, "profile", p.At("cpus"))
	}
	if p.CPUs == 0 || p.CPUs > host {
		return host
	}
	return p.CPUs
}

// vmMemory returns the VM's memory in bytes; mib is LSUB_MEMORY, for tests.
func vmMemory(mib string, p *profile.Profile) (int64, error) {
	switch {
	case mib != "":
	case p.Memory >= hypervisor.MinMemory:
		return p.Memory >> 20 << 20, nil // whole MiB
	case p.Memory > 0:
		return 0, hint.New(fmt.Errorf("%s: memory: %d MiB are too little for a VM", p.At("memory"), p.Memory>>20),
			fmt.Sprintf("give it %dM at least; 512M leave room for a distro", hypervisor.MinMemory>>20))
	default:
		host, err := machine.HostMemory()
		if err != nil {
			return 0, fmt.Errorf("memory of this machine: %w", err)
		}
		return machine.DefaultMemory(host)
	}
	n, err := strconv.ParseInt(mib, 10, 32)
	if err != nil || n < 1 {
		return 0, hint.New(fmt.Errorf("LSUB_MEMORY is %q", mib), "give a number of MiB, such as 2048")
	}
	if n<<20 < hypervisor.MinMemory {
		return 0, hint.New(fmt.Errorf("LSUB_MEMORY is %d MiB, too little for a VM", n),
			fmt.Sprintf("set LSUB_MEMORY to %d at least; 512 leave room for a distro", hypervisor.MinMemory>>20))
	}
	return n << 20, nil
}

// warnings is a log whose warnings the command that starts the VM hears too:
// what a driver has to do without makes the VM slower.
type warnings struct {
	slog.Handler
	to *machine.Reporter
}

func (w warnings) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		w.to.Warn(r.Message)
	}
	return w.Handler.Handle(ctx, r)
}

func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs), w.to}
}

func (w warnings) WithGroup(name string) slog.Handler {
	return warnings{w.Handler.WithGroup(name), w.to}
}
