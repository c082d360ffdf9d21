package profile

import (
	"slices"

	"go.yaml.in/yaml/v4"
)

// What carries the requests of a mount between host and guest.
const (
	CarrierVirtioFS = "virtiofs" // a device of the VM's
	CarrierStream   = "stream"   // a connection to the agent
)

// Mount is a directory of the host that distros see.
type Mount struct {
	Dir      string // as [Expand] takes it
	Writable bool
	Metadata bool   // keep owners and devices that the host cannot keep, in extended attributes
	Carrier  string // CarrierVirtioFS or CarrierStream; "" for the best that the hypervisor has
}

// homeMount is what is shared if the profile does not say.
var homeMount = Mount{Dir: "~/"}

// mounts reads the list of directories: paths, or paths with settings.
func (d *decoder) mounts(path string, n *yaml.Node) {
	d.p.Mounts, d.p.DefaultMounts = []Mount{}, false // "mounts: []" means none at all
	for _, n := range items(n) {
		switch v := target(n); {
		case empty(n) && v.Value == "~": // to YAML, that is nothing at all
			d.addMount(path, n, homeMount)
		case empty(n):
			d.problem(n, "%s has an empty item", path)
		default:
			d.mount(path, n)
		}
	}
}

func (d *decoder) mount(path string, n *yaml.Node) {
	var m Mount
	dir := set(d, &m.Dir, parseMountDir)
	before := len(d.problems)
	if target(n).Kind == yaml.MappingNode {
		d.mapping(path+"[].", n,
			field{"path", dir},
			field{"writable", set(d, &m.Writable, parseBool)},
			field{"metadata", set(d, &m.Metadata, parseBool)},
			field{"carrier", set(d, &m.Carrier, oneOf(CarrierVirtioFS, CarrierStream))},
		)
	} else {
		dir(path, n)
	}
	switch {
	case len(d.problems) > before:
	case m.Dir == "":
		d.problem(n, "%s: a mount needs a path; the home folder is \"~/\"", path)
	default:
		d.addMount(path, n, m)
	}
}

func (d *decoder) addMount(path string, n *yaml.Node, m Mount) {
	if slices.ContainsFunc(d.p.Mounts, func(o Mount) bool { return o.Dir == m.Dir }) {
		d.problem(n, "%s: %s is in the list already", path, m.Dir)
		return
	}
	d.p.Mounts = append(d.p.Mounts, m)
}

// parseMountDir reads a path of the host, which may be the home directory.
func parseMountDir(text string) (string, error) {
	if text == "~" {
		return "~/", nil
	}
	return parseHostPath(text)
}
