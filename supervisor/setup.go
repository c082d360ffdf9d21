package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// Setup is what [Setup.Load] makes a supervisor's configuration of, with the profile.
type Setup struct {
	machine.Config
	// Driver returns the hypervisor's driver. Its warnings reach the user too.
	Driver func(*slog.Logger) (hypervisor.Driver, error)
	// Guest makes the files that the VM boots ready, in the cache directory.
	Guest       func(ctx context.Context, cache string) (GuestFiles, error)
	ShareServer []string          // as [Config.ShareServer]; nil for a VM without shares
	Network     bool              // whether the VM has one
	BootTimeout time.Duration     // as [Config.BootTimeout]
	Reporter    *machine.Reporter // as [Config.Reporter]
	Getenv      func(string) string
}

// Load reads the profile, and returns the configuration of a supervisor that
// runs the VM as the profile says.
func (s Setup) Load(ctx context.Context) (Config, error) {
	log := slog.New(newLimitedHandler(s.Logger.Handler()))
	s.Logger = log
	cfg := Config{Config: s.Config, BootTimeout: s.BootTimeout, Reporter: s.Reporter}
	m, err := machine.Open(s.Config)
	if err != nil {
		return cfg, err
	}
	p, err := m.LoadProfile()
	if err != nil {
		return cfg, err
	}
	if err := isolateDistros(ctx, m, p); err != nil {
		return cfg, err
	}
	if cfg.Memory, err = vmMemory(s.Getenv("LSUB_MEMORY"), p); err != nil {
		return cfg, err
	}
	cfg.CPUs, cfg.Settings = vmCPUs(p, log), p.Settings()
	cfg.Idle, cfg.DistroIdle = p.Idle.VM, p.Idle.Distro
	cfg.DistroEnv = p.Network.ProxyEnv(s.Getenv)
	own := &addresses{machine: m}
	if cfg.Forwarder, err = newForwarder(p, m, own, log, s.Getenv); err != nil {
		return cfg, err
	}
	warn := slog.New(warnings{log.Handler(), s.Reporter})
	if cfg.Driver, err = s.Driver(warn); err != nil {
		return cfg, err
	}
	if cfg.Nested, err = vmNested(ctx, p, cfg.Driver); err != nil {
		return cfg, err
	}
	cfg.Guest = func(ctx context.Context) (GuestFiles, error) { return s.Guest(ctx, s.Paths.Cache) }
	if s.ShareServer != nil {
		cfg.ShareServer = s.ShareServer
		cfg.Shares = func() ([]machine.Share, error) {
			return m.ConfiguredShares(p, func(text string) { log.Warn(text) })
		}
	}
	// For tests of what Windows has.
	cfg.Cardless = s.Getenv("LSUB_CARD") == "none"
	if s.Network {
		cfg.Network = func() (Network, error) { return newNetwork(m, p, own, log, warn) }
	}
	return cfg, nil
}

// distroNames returns the names of a machine's distros by id.
func distroNames(m *machine.Machine) map[string]string {
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

// vmCPUs returns how many CPUs the VM has: a profile may come from a larger machine.
func vmCPUs(p *profile.Profile, log *slog.Logger) int {
	host := runtime.NumCPU()
	if p.CPUPercent > 0 {
		return max(1, host*p.CPUPercent/100)
	}
	if p.CPUs > host {
		log.Warn("the VM gets all CPUs of this machine, which has fewer than the profile says", "cpus", host, "profile", p.At("cpus"))
	}
	if p.CPUs == 0 || p.CPUs > host {
		return host
	}
	return p.CPUs
}

// vmNested returns whether the VM can run VMs itself. Unless the profile says it, that is
// where the hypervisor can and nothing is emulated.
func vmNested(ctx context.Context, p *profile.Profile, d hypervisor.Driver) (bool, error) {
	n, ok := d.(hypervisor.Nester)
	wanted := p.Nested != nil && *p.Nested
	switch {
	case p.Nested != nil && !wanted, !wanted && !ok:
		return false, nil
	case !ok:
		return false, hint.New(fmt.Errorf("%s: nested: the driver %s runs no VMs in VMs", p.At("nested"), d.Name()), "leave the key out")
	case !wanted:
		e, may := d.(hypervisor.Emulator)
		return n.CheckNested(ctx) == nil && !(may && e.Emulates(ctx)), nil
	}
	if err := n.CheckNested(ctx); err != nil {
		return false, fmt.Errorf("%s: nested: %w", p.At("nested"), err)
	}
	return true, nil
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
		if p.MemoryPercent > 0 {
			if part := host / 100 * int64(p.MemoryPercent); part >= hypervisor.MinMemory {
				return part >> 20 << 20, nil
			}
			return 0, hint.New(fmt.Errorf("%s: memory: %d%% of this machine's memory are too little for a VM", p.At("memory"), p.MemoryPercent),
				fmt.Sprintf("give it %dM at least", hypervisor.MinMemory>>20))
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
