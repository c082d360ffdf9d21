package profile

import (
	"strings"
	"time"
)

// Distro is what the profile says of one distro.
type Distro struct {
	Network   NetworkMode
	AutoPorts bool // its listeners are forwarded by themselves

	Image     string // as 'lsub install' takes it; "" stands for the distro's name
	User      string // the default user; "": as the installation chooses
	Systemd   *bool  // whether systemd is process 1; nil: as the distro's own files say
	Limits    Limits
	Idle      *time.Duration // [Never], or 0 for the default; nil: as it is
	Autostart string         // "vm", "login" or "off"; "": as it is

	Environment []string // NAME=value, for its commands and services
	Packages    []string // names, as its package manager knows them
	Files       []GuestFile
	Provision   []Step
	Cache       bool // each step's result is kept, to go on from there when a later step changes
	Probes      []Probe
}

// Limits are those of a distro. 0 is none, and nil leaves a limit as it is.
type Limits struct {
	Memory *int64 // bytes
	CPUs   *int64 // thousandths of a CPU
	PIDs   *int64 // processes and threads
}

// The least limits that a distro's own init gets along with.
const (
	MinMemoryMax = 16 << 20 // bytes
	MinCPUMax    = 10       // thousandths of a CPU
	MinPIDsMax   = 16
)

// GuestFile is a file that a distro has.
type GuestFile struct {
	Path    string // in the distro, from the root or from the default user's "~/"
	Content string // where Source is ""
	Source  string // a file of the host; see [HostFile]
	Mode    uint32 // permissions, 12 bits
	Owner   string // USER or USER:GROUP; "": root, or for "~/" the default user
	At      string `json:"-"` // "FILE:LINE:COLUMN"
}

// Home tells whether the file belongs to the default user's home directory.
func (f *GuestFile) Home() bool { return strings.HasPrefix(f.Path, "~/") }

// StepMode says when a step runs, and as whom.
type StepMode string

const (
	StepSystem StepMode = "system" // once, as root
	StepUser   StepMode = "user"   // once, as the default user, with the environment of a login
	StepBoot   StepMode = "boot"   // once after each start of the distro, as root, before all else
	StepReady  StepMode = "ready"  // once after each start of the distro, as root, after the probes
)

// Step is a script that makes a distro what it is to be.
type Step struct {
	Name    string // unique, one line
	Mode    StepMode
	Script  string        // where File is ""
	File    string        // a file of the host; see [HostFile]
	Creates string        // a path in the distro; where it exists, the step is not run
	Unless  string        // a line of shell; where it succeeds, the step is not run
	Timeout time.Duration // 0 for none
	At      string        `json:"-"` // "FILE:LINE:COLUMN"
}

// Probe is a condition of a distro that is ready: one of Script, Port and HTTP.
type Probe struct {
	Script  string // succeeds, as root
	Port    uint16 // something listens there, TCP
	HTTP    string // an address in the distro, whose answer is below 400
	Timeout time.Duration
	At      string `json:"-"` // "FILE:LINE:COLUMN"
}

// NetworkMode says whose network a distro has.
type NetworkMode string

const (
	NetworkShared   NetworkMode = "shared"   // the VM's, as all others with it
	NetworkIsolated NetworkMode = "isolated" // its own: address, name and ports
)

// DistroNames returns the names of the distros, in small letters and as the file has them.
func (p *Profile) DistroNames() []string { return p.order }
