// Package machine is a profile's VM on the host as every process sees it: the
// state directory, the registry of distros, and the way to the supervisor, which
// is one process for each VM that runs (package supervisor).
//
// A command opens the [Machine] of a profile and dials the guest through it. The
// first dial starts the VM where it is off:
//
//	m, err := machine.Open(machine.Config{
//		Profile: "default", Paths: paths, Version: version,
//		Supervisor: []string{exe, "supervise"},
//	})
//	if err != nil {
//		return err
//	}
//	exit, err := guest.NewClient(m, version).Exec(ctx, cmd, stdio)
//
// A Machine holds nothing open, so it has no Close.
//
// The supervisor serves the profile's unix socket: the Supervisor service, the
// Guest service, which it relays from the VM, and tunnels to vsock ports
// ("CONNECT guest:PORT HTTP/1.1"). Only package guest knows what goes through a
// tunnel.
//
// Files of a profile, all below its directory in [Paths.Home]:
//
//	registry.json    the distros; the one before it is in registry.json.old
//	registry.lock    held while the registry is changed
//	data.img         the data disk, sparse
//	console.log      of the VM that runs, or ran last; console.log.old before it
//	supervisor.log   what the supervisors logged
//	supervisor.json  the supervisor that runs, or how the last one ended
//	supervisor.lock  held by the supervisor as long as it lives
//	start.lock       held by the command that starts a supervisor
//	network.json     the network that the VM had last
//
// Where a process takes two of the locks, the order is start.lock,
// supervisor.lock, registry.lock.
package machine

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Config says which machine, and how to start it.
type Config struct {
	Profile string // as [CheckName] wants it
	Paths   Paths
	Version string // of lsub; a supervisor of another one is refused

	// Supervisor is the command that runs the profile's supervisor: the path of a
	// program and its arguments. The command also gets the argument
	// "--ready-fd=N", the number of an open file to report its start to (see
	// [NewReporter]).
	Supervisor []string
	// Progress is told what a start is doing; nil discards.
	Progress func(stage string)
	// Notice is told in one line how the last VM ended, where nobody asked it
	// to; nil discards.
	Notice func(text string)
	// Warn is told in one line what a start has to do without, such as the
	// CPU's virtualization: the same each time; nil discards.
	Warn func(text string)
	// Logger receives what was worked around; nil discards.
	Logger *slog.Logger
	// Patience is how long a supervisor may take to say anything at all; 0
	// means 15 s.
	Patience time.Duration
}

// Machine is a profile's VM as a command sees it, running or not. It is safe
// for concurrent use.
type Machine struct {
	cfg Config
	dir string // of the profile

	dialed atomic.Int64 // when the guest was last reached: Unix time in nanoseconds
}

// Open returns the machine of a profile. It makes no directory: what is asked of
// a profile that was never used leaves no trace.
func Open(cfg Config) (*Machine, error) {
	if err := CheckName("profile", cfg.Profile); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	if cfg.Notice == nil {
		cfg.Notice = func(string) {}
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	if cfg.Patience == 0 {
		cfg.Patience = answerTimeout
	}
	return &Machine{cfg: cfg, dir: filepath.Join(cfg.Paths.Home, "profiles", cfg.Profile)}, nil
}

// MakeDir makes the profile's directory where it is missing.
func (m *Machine) MakeDir() error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of profile %s: %w", m.cfg.Profile, err)
	}
	return nil
}

// Profile is the name of the profile.
func (m *Machine) Profile() string { return m.cfg.Profile }

// Dir is the directory that holds the profile's state.
func (m *Machine) Dir() string { return m.dir }

// DataDisk is the file that holds every image and distro.
func (m *Machine) DataDisk() string { return filepath.Join(m.dir, "data.img") }

// ConsoleLog is what the VM's kernel and init wrote.
func (m *Machine) ConsoleLog() string { return filepath.Join(m.dir, "console.log") }

// SupervisorLog is what the supervisors wrote.
func (m *Machine) SupervisorLog() string { return filepath.Join(m.dir, "supervisor.log") }

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// DiskUsage is what the data disk takes of the host's disk, in bytes.
func (m *Machine) DiskUsage() int64 {
	fi, err := os.Stat(m.DataDisk())
	if err != nil {
		return 0
	}
	return allocated(fi)
}
