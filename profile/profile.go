// Package profile reads the file in which a user says what a VM and its
// distros are like: profile.yaml in the profile's directory. docs/profile.md has
// every key.
//
//	p, err := profile.Load(filepath.Join(m.Dir(), profile.File))
//	if err != nil {
//		return err // all that is wrong with it, each with line and column
//	}
//	listen := p.Ports.HostAddress
//
// A file that is missing or empty means [Default]. A user writes the file by
// hand, so everything in it has to make sense: an unknown key is an error as
// much as a bad value is, because a misspelt "host_access: false" that is
// skipped opens what was meant to be closed.
//
// The types are plain values with the defaults filled in. They open nothing
// and hold nothing of the host: paths in them go through [Expand].
package profile

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"
)

// File is the name of a profile's file, in the profile's directory.
const File = "profile.yaml"

// Never is a time that does not come.
const Never time.Duration = -1

// maxFile is the most bytes of a file that is read.
const maxFile = 1 << 20

// Profile is what a file says.
type Profile struct {
	Memory int64 // of the VM, bytes; 0: lsub chooses
	CPUs   int   // of the VM; 0: all of the host's
	// MemoryPercent and CPUPercent are parts of what the host has, in place of Memory and
	// CPUs; 0 for none.
	MemoryPercent, CPUPercent int
	Nested                    *bool // distros can run VMs; nil: where the host's processor helps with it
	Idle                      Idle
	Catalogues                []Catalogue // besides the built-in ones, in the order of the file
	Network                   Network
	Ports                     Ports
	Mounts                    []Mount // of directories of the host, in the order of the file
	// DefaultMounts says that the file has no mounts: Mounts is the default.
	DefaultMounts bool
	Distros       map[string]Distro // by name in small letters; see [Profile.Distro]

	file  string
	where map[string]position // of values, by their path
	// foreign has the files of values that another file has, by their path.
	foreign map[string]string
	order   []string // names of the distros, as the file has them
}

// Idle says how long what does nothing stays up, or Never that it goes.
type Idle struct {
	VM     time.Duration // without a distro that runs
	Distro time.Duration // for distros without a time of their own
}

// Catalogue is a server that offers images.
type Catalogue struct {
	URL  string // https
	Kind string // "wsl" or "simplestreams"; "" to find out
}

// Network is how the VM reaches the world.
type Network struct {
	Subnet     netip.Prefix     // of the VM, private IPv4; zero: lsub chooses
	HostAccess bool             // host.lsub.internal reaches the host's loopback
	Proxy      Proxy            // for distros
	CABundle   string           // PEM file on the host, as [Expand] takes it; "" for none
	DNS        []netip.AddrPort // servers in place of the host's; empty: the host's
	Search     []string         // search domains in place of the host's; nil: the host's
	Hosts      map[string][]netip.Addr
}

// Proxy says which proxies the distros' environment names.
type Proxy struct {
	Mode ProxyMode
	// With ProxySet, the values of http_proxy, https_proxy, all_proxy and
	// no_proxy; "" for a variable that is not set.
	HTTP, HTTPS, All, No string
}

// ProxyMode is where the distros' proxies come from.
type ProxyMode string

const (
	ProxyAuto ProxyMode = "auto" // the host's environment
	ProxyOff  ProxyMode = "off"
	ProxySet  ProxyMode = "set" // the profile
)

// Default is the profile that an empty file means.
func Default() *Profile {
	return &Profile{
		Idle:    Idle{VM: time.Minute, Distro: 5 * time.Minute},
		Network: Network{HostAccess: true, Proxy: Proxy{Mode: ProxyAuto}},
		Ports:   Ports{Auto: true, HostAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Users: PortUsersAll},
		Mounts:  []Mount{homeMount}, DefaultMounts: true,
		Distros: map[string]Distro{},
		file:    File,
	}
}

// Load reads a file, without what it builds on, as [Parse]. What is wrong with what is in it is
// an [*Error].
func Load(path string) (*Profile, error) { return LoadFrom(path, Source{}) }

// LoadFrom is Load with what the file builds on.
func LoadFrom(path string, src Source) (*Profile, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p := Default()
		p.file = path
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("read the profile: %w", err)
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("the profile %s is no file", path)
	case fi.Size() > maxFile:
		return nil, fmt.Errorf("the profile %s has %d bytes, more than %d", path, fi.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the profile: %w", err)
	}
	return ParseFrom(path, data, src)
}

// Distro returns what holds for the distro of a name, in any case.
func (p *Profile) Distro(name string) Distro {
	if d, ok := p.Distros[strings.ToLower(name)]; ok {
		return d
	}
	return Distro{Network: NetworkShared, AutoPorts: p.Ports.Auto}
}

// At returns where the value of a key is, such as "network.subnet", as
// "FILE:LINE:COLUMN": for messages about a value that only the host shows to
// be bad. Where the file does not have it, At returns the file.
func (p *Profile) At(key string) string {
	if pos, ok := p.where[key]; ok {
		return fmt.Sprintf("%s:%v", cmp.Or(p.foreign[key], p.file), pos)
	}
	return p.file
}
