package profile

import (
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The methods below are the keys of a profile, from the top down.

func (d *decoder) profile(n *yaml.Node) {
	if empty(n) {
		return
	}
	p := d.p
	none := func(string, *yaml.Node) {} // read before
	d.mapping("", n,
		field{"base", none},
		field{"params", none},
		field{"memory", d.part(&p.MemoryPercent, set(d, &p.Memory, parseMemory))},
		field{"cpus", d.part(&p.CPUPercent, set(d, &p.CPUs, parseCPUs))},
		field{"nested", set(d, &p.Nested, func(text string) (*bool, error) {
			on, err := parseBool(text)
			return &on, err
		})},
		field{"idle", d.idle},
		field{"catalogues", func(path string, n *yaml.Node) {
			d.list(path, n, func(n *yaml.Node) { d.catalogue(path, n) })
		}},
		field{"network", d.network},
		field{"ports", d.ports},
		field{"mounts", d.mounts},
		field{"distros", d.distros},
	)
}

// part takes a part of what the host has, such as "50%", or what take takes.
func (d *decoder) part(percent *int, take func(string, *yaml.Node)) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if v := target(n); v.Kind == yaml.ScalarNode && strings.HasSuffix(v.Value, "%") {
			set(d, percent, parsePercent)(path, n)
			return
		}
		take(path, n)
	}
}

func (d *decoder) idle(path string, n *yaml.Node) {
	d.mapping(path+".", n,
		field{"vm", set(d, &d.p.Idle.VM, ParseIdle)},
		field{"distro", set(d, &d.p.Idle.Distro, ParseIdle)},
	)
}

// catalogue reads an address, or one with its kind.
func (d *decoder) catalogue(path string, n *yaml.Node) {
	var c Catalogue
	take := set(d, &c.URL, parseCatalogueURL)
	before := len(d.problems)
	if target(n).Kind == yaml.MappingNode {
		d.mapping(path+"[].", n,
			field{"url", take},
			field{"kind", set(d, &c.Kind, oneOf("wsl", "simplestreams"))},
		)
	} else {
		take(path, n)
	}
	switch {
	case len(d.problems) > before:
	case c.URL == "":
		d.problem(n, "%s: a catalogue needs a url", path)
	case slices.ContainsFunc(d.p.Catalogues, func(o Catalogue) bool { return o.URL == c.URL }):
		d.problem(n, "%s: %s is in the list already", path, c.URL)
	default:
		d.p.Catalogues = append(d.p.Catalogues, c)
	}
}

func (d *decoder) network(path string, n *yaml.Node) {
	net := &d.p.Network
	d.mapping(path+".", n,
		field{"subnet", set(d, &net.Subnet, parseSubnet)},
		field{"host_access", set(d, &net.HostAccess, parseBool)},
		field{"proxy", d.proxy},
		field{"ca_bundle", set(d, &net.CABundle, parseHostPath)},
		field{"dns", collect(d, &net.DNS, parseServer)},
		field{"search", func(path string, n *yaml.Node) {
			net.Search = []string{} // "search: []" means none at all
			collect(d, &net.Search, parseDomain)(path, n)
		}},
		field{"hosts", d.hosts},
	)
}

func (d *decoder) proxy(path string, n *yaml.Node) {
	p := &d.p.Network.Proxy
	if target(n).Kind != yaml.MappingNode {
		set(d, &p.Mode, func(text string) (ProxyMode, error) {
			// "off" may have been written as a truth value.
			if text == "false" || text == "no" {
				text = "off"
			}
			return oneOf(ProxyAuto, ProxyOff)(text)
		})(path, n)
		return
	}
	p.Mode = ProxySet
	d.mapping(path+".", n,
		field{"http", set(d, &p.HTTP, parseProxyURL)},
		field{"https", set(d, &p.HTTPS, parseProxyURL)},
		field{"all", set(d, &p.All, parseProxyURL)},
		field{"no", func(path string, n *yaml.Node) {
			var names []string
			collect(d, &names, func(text string) (string, error) { return text, nil })(path, n)
			p.No = strings.Join(names, ",")
		}},
	)
}

func (d *decoder) hosts(path string, n *yaml.Node) {
	hosts := map[string][]netip.Addr{}
	d.pairs(path, n, func(key string, k, v *yaml.Node) {
		name, err := parseDomain(key)
		if err != nil {
			d.problem(k, "%s: %v", path, err)
			return
		}
		if empty(v) {
			d.problem(k, "%s: %s has no address", path, key)
			return
		}
		addrs := hosts[name]
		collect(d, &addrs, parseAddr)(path+"."+key, v)
		hosts[name] = addrs
	})
	d.p.Network.Hosts = hosts
}

func (d *decoder) ports(path string, n *yaml.Node) {
	p := &d.p.Ports
	each := func(take func(string, *yaml.Node)) func(string, *yaml.Node) {
		return func(path string, n *yaml.Node) {
			rules := 0
			d.list(path, n, func(n *yaml.Node) {
				if rules++; rules <= maxRules {
					take(path, n)
				}
			})
			if rules > maxRules {
				d.problem(n, "%s has %d rules; there may be %d", path, rules, maxRules)
			}
		}
	}
	d.mapping(path+".", n,
		field{"auto", set(d, &p.Auto, parseBool)},
		field{"host_address", set(d, &p.HostAddress, parseAddr)},
		field{"next_free", set(d, &p.NextFree, parseBool)},
		field{"users", set(d, &p.Users, oneOf(PortUsersAll, PortUsersOwner))},
		field{"ranges", collect(d, &p.Ranges, parsePortRange)},
		field{"ignore", collect(d, &p.Ignore, parsePortRange)},
		field{"forwards", each(d.forward)},
		field{"reverse", each(d.reverse)},
		field{"sockets", each(d.socket)},
	)
	d.overlaps()
}
