// Package schema is the JSON schema of a profile's file, for editors. The types say what the
// file looks like, and their comments what the keys mean: the schema and the table of
// docs/profile.md are made of them (go test ./profile/schema -update). A test holds the schema
// to what package profile reads.
package schema

import _ "embed" // the schema

// JSON is the schema, draft 2020-12.
//
//go:embed profile.schema.json
var JSON []byte

// The kinds of values.
type (
	// Size is a number of bytes, such as 4GiB or 512M.
	Size string
	// Memory is a size, or a part of the host's memory, such as 50%.
	Memory string
	// Processors is a number, or a part of the host's, such as 50%.
	Processors string
	// Limit is a value, or none.
	SizeLimit  string
	CPULimit   string
	CountLimit string
	// Bool is true, yes, on, false, no or off.
	Bool string
	// Time is a duration, such as 90s, 5m or 1h30m.
	Time string
	// Idle is a duration, or never.
	IdleTime string
	// DistroIdle is a duration, never, or default.
	DistroIdle string
	// Digest is a SHA-256 in hex.
	Digest string
	// HTTPS is an https address.
	HTTPS string
	// HostPath is a path of the host: from the root, ~/ or a $VARIABLE.
	HostPath string
	// HostFile is a path of the host, which may be relative to the file's folder.
	HostFile string
	// GuestPath is a path of a distro: from the root or ~/.
	GuestPath string
	// Address is an IP address.
	Address string
	// Server is an IP address with or without a port.
	Server string
	// Subnet is a private IPv4 network, such as 10.77.0.0/24.
	Subnet string
	// Domain is a DNS name.
	Domain string
	// ProxyURL is a URL, or HOST:PORT.
	ProxyURL string
	// PortRange is a port or a range, with or without /tcp or /udp.
	PortRange string
	// Port is a number from 1 to 65535.
	Port string
	// Line is any text in one line.
	Line string
	// Text is any text.
	Text string
	// Account is the name of a user.
	Account string
	// Package is the name of a package.
	Package string
	// Owner is USER or USER:GROUP.
	Owner string
	// Mode is an octal number, such as 0644.
	Mode string
	// StepName is one line of at most 100 bytes.
	StepName string
	// ProbeURL is an http address on the distro's localhost.
	ProbeURL string
	// Image is what 'lsub install' takes.
	Image string
)

// Profile is the file.
type Profile struct {
	// what the file builds on: template:NAME, a file, or an address with its digest
	Base *Base `json:"base,omitempty"`
	// values of your own: ${param.NAME} stands for one, 'lsub up --set NAME=VALUE' gives another
	Params map[string]Line `json:"params,omitempty"`
	// memory of the VM, or a part of the host's such as 50%; default: half of the host's, at most 8GiB
	Memory Memory `json:"memory,omitempty"`
	// processors of the VM, or a part of the host's such as 50%; default: all of the host's
	CPUs Processors `json:"cpus,omitempty"`
	// distros can run VMs (/dev/kvm); default: true where the host's CPU helps with it
	Nested Bool `json:"nested,omitempty"`
	// how long what does nothing stays up
	Idle *Idle `json:"idle,omitempty"`
	// lists of images, besides the built-in ones
	Catalogues []Catalogue `json:"catalogues,omitempty"`
	// how the VM reaches the world
	Network *Network `json:"network,omitempty"`
	// what is forwarded between the host and the distros
	Ports *Ports `json:"ports,omitempty"`
	// folders of the host that distros see; [] for none; default: the home folder, read-only
	Mounts []Mount `json:"mounts,omitempty"`
	// the distros that 'lsub up' makes
	Distros map[string]*Distro `json:"distros,omitempty"`
}

// Base is a file at an address.
type Base struct {
	// https
	URL HTTPS `json:"url,omitempty"`
	// its SHA-256, 64 hex digits
	SHA256 Digest `json:"sha256,omitempty"`
}

// Idle is when what does nothing stops.
type Idle struct {
	// the VM shuts down this long after its last distro; default: 1m
	VM IdleTime `json:"vm,omitempty"`
	// a distro that does nothing stops after this; default: 5m
	Distro IdleTime `json:"distro,omitempty"`
}

// Catalogue is a list of images.
type Catalogue struct {
	// where it is
	URL HTTPS `json:"url,omitempty"`
	// default: lsub finds out
	Kind string `json:"kind,omitempty" jsonschema:"enum=wsl,enum=simplestreams"`
}

// Network is how the VM reaches the world.
type Network struct {
	// the VM's network, /16 to /28; default: one that the host has no route to
	Subnet Subnet `json:"subnet,omitempty"`
	// host.lsub.internal reaches servers on the host's 127.0.0.1; default: true
	HostAccess Bool `json:"host_access,omitempty"`
	// the proxies of distros: auto (the host's environment), off, or values; default: auto
	Proxy *Proxy `json:"proxy,omitempty"`
	// a file with more certificates that the distros trust; default: none
	CABundle HostPath `json:"ca_bundle,omitempty"`
	// name servers; default: the host's
	DNS []Server `json:"dns,omitempty"`
	// search domains; [] for none; default: the host's
	Search []Domain `json:"search,omitempty"`
	// names of your own, before all others, with their addresses
	Hosts map[string][]Address `json:"hosts,omitempty"`
}

// Proxy has the values of proxy variables.
type Proxy struct {
	// http_proxy
	HTTP ProxyURL `json:"http,omitempty"`
	// https_proxy
	HTTPS ProxyURL `json:"https,omitempty"`
	// all_proxy
	All ProxyURL `json:"all,omitempty"`
	// no_proxy: hosts that are reached without a proxy
	No []Line `json:"no,omitempty"`
}

// Ports says what is forwarded.
type Ports struct {
	// a listener in a distro answers on the same port of the host; default: true
	Auto Bool `json:"auto,omitempty"`
	// the host's address for ports without one of their own; default: 127.0.0.1, which includes ::1
	HostAddress Address `json:"host_address,omitempty"`
	// if the host uses the port, take the next free one; default: false
	NextFree Bool `json:"next_free,omitempty"`
	// who may connect on the host: all, or owner (only you and root); default: all
	Users string `json:"users,omitempty" jsonschema:"enum=all,enum=owner"`
	// automatic only for these; default: all
	Ranges []PortRange `json:"ranges,omitempty"`
	// automatic for all but these; default: none
	Ignore []PortRange `json:"ignore,omitempty"`
	// from the host to a distro: [ADDRESS:]PORTS[/tcp|udp|both] -> [DISTRO:]PORTS
	Forwards []Rule `json:"forwards,omitempty"`
	// from a distro to the host: [DISTRO:][ADDRESS:]PORTS -> [HOST:]PORTS
	Reverse []Rule `json:"reverse,omitempty"`
	// unix sockets: PATH -> DISTRO:PATH, or DISTRO:PATH -> PATH
	Sockets []SocketRule `json:"sockets,omitempty"`
}

// Rule is a forward, "FROM -> TO" or with keys.
type Rule struct {
	// where it listens
	From Line `json:"from,omitempty"`
	// where it leads
	To Line `json:"to,omitempty"`
	// default: tcp
	Proto string `json:"proto,omitempty" jsonschema:"enum=tcp,enum=udp,enum=both"`
}

// SocketRule is a forward of a socket.
type SocketRule struct {
	// where it listens
	From Line `json:"from,omitempty"`
	// where it leads
	To Line `json:"to,omitempty"`
}

// Mount is a folder of the host, a path or with keys.
type Mount struct {
	// the folder
	Path HostPath `json:"path,omitempty"`
	// distros may change it; default: false
	Writable Bool `json:"writable,omitempty"`
	// keep owners and devices in extended attributes; default: false
	Metadata Bool `json:"metadata,omitempty"`
	// default: the best that the VM has
	Carrier string `json:"carrier,omitempty" jsonschema:"enum=virtiofs,enum=stream"`
}

// Distro is what a distro is to be.
type Distro struct {
	// as 'lsub install' takes it; default: the distro's name
	Image Image `json:"image,omitempty"`
	// the default user; default: as 'lsub install' chooses
	User Account `json:"user,omitempty"`
	// systemd is process 1; default: if the distro has systemd
	Systemd Bool `json:"systemd,omitempty"`
	// what it may use; default: as 'lsub manage' sets them
	Limits *Limits `json:"limits,omitempty"`
	// how long it may do nothing; default of a new distro: idle.distro
	Idle DistroIdle `json:"idle,omitempty"`
	// vm: with the VM; login: also when you log in; off. Default: as 'lsub manage' sets it
	Autostart string `json:"autostart,omitempty" jsonschema:"enum=vm,enum=login,enum=off"`
	// shared: the VM's network, with the others; isolated: its own address and ports. Default: shared
	Network string `json:"network,omitempty" jsonschema:"enum=shared,enum=isolated"`
	// what of it is forwarded
	Ports *DistroPorts `json:"ports,omitempty"`
	// variables of its commands and services
	Environment map[string]Line `json:"environment,omitempty"`
	// packages, by the distro's own names
	Packages []Package `json:"packages,omitempty"`
	// files, by their paths
	Files map[string]*File `json:"files,omitempty"`
	// scripts, in this order
	Provision []Step `json:"provision,omitempty"`
	// keep the distro as it is after each step, and go back there when a later step changes; default: false
	Cache Bool `json:"cache,omitempty"`
	// when the distro is ready; default: when it runs
	Probes []Probe `json:"probes,omitempty"`
}

// Limits are those of a distro.
type Limits struct {
	// of all its processes, at least 16M; none for no limit
	Memory SizeLimit `json:"memory,omitempty"`
	// such as 1.5; none for no limit
	CPUs CPULimit `json:"cpus,omitempty"`
	// processes and threads, at least 16; none for no limit
	PIDs CountLimit `json:"pids,omitempty"`
}

// DistroPorts is what of a distro is forwarded.
type DistroPorts struct {
	// as ports.auto, for this distro
	Auto Bool `json:"auto,omitempty"`
}

// File is one of a distro: its text, or with keys.
type File struct {
	// its text
	Content Text `json:"content,omitempty"`
	// a file of the host, instead of content
	Source HostFile `json:"source,omitempty"`
	// permissions; default: 0644
	Mode Mode `json:"mode,omitempty"`
	// default: root, or the default user for a file in ~/
	Owner Owner `json:"owner,omitempty"`
}

// Step is a script, or one with keys.
type Step struct {
	// for messages; default: step 1, step 2, …
	Name StepName `json:"name,omitempty"`
	// when it runs, and as whom; default: system
	Mode string `json:"mode,omitempty" jsonschema:"enum=system,enum=user,enum=boot,enum=ready"`
	// its text
	Script Text `json:"script,omitempty"`
	// a file of the host, instead of script
	File HostFile `json:"file,omitempty"`
	// the step is not run if this is there
	Creates GuestPath `json:"creates,omitempty"`
	// the step is not run if this line of shell succeeds
	Unless Text `json:"unless,omitempty"`
	// default: none
	Timeout Time `json:"timeout,omitempty"`
}

// Probe tells when a distro is ready: one of script, port and http.
type Probe struct {
	// it succeeds, as root
	Script Text `json:"script,omitempty"`
	// TCP, on the distro's localhost
	Port Port `json:"port,omitempty"`
	// its answer is below 400
	HTTP ProbeURL `json:"http,omitempty"`
	// default: 2m
	Timeout Time `json:"timeout,omitempty"`
}
