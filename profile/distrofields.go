package profile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// The methods below are the keys of a distro.

const (
	maxDistros = 256
	maxItems   = 1024 // packages, files or steps of a distro
	// probeTimeout is how long a probe is asked where the profile does not say it.
	probeTimeout = 2 * time.Minute
)

func (d *decoder) distros(path string, n *yaml.Node) {
	d.pairs(path, n, func(key string, k, v *yaml.Node) {
		name, err := parseDistro(key)
		if err != nil {
			d.problem(k, "%s: %v", path, err)
			return
		}
		if _, twice := d.p.Distros[name]; twice {
			d.problem(k, "%s: %s is there already, in other letters", path, key)
			return
		}
		if len(d.p.order) == maxDistros {
			d.problem(k, "%s: there are more than %d", path, maxDistros)
		}
		if len(d.p.order) >= maxDistros {
			return
		}
		d.p.order = append(d.p.order, name)
		d.p.Distros[name] = d.distro(path+"."+name, v)
	})
}

func (d *decoder) distro(path string, n *yaml.Node) Distro {
	distro := Distro{Network: NetworkShared, AutoPorts: d.p.Ports.Auto}
	if empty(n) {
		return distro
	}
	d.mapping(path+".", n,
		field{"image", set(d, &distro.Image, parseImage)},
		field{"user", set(d, &distro.User, parseUser)},
		field{"systemd", set(d, &distro.Systemd, pointer(parseBool))},
		field{"limits", func(path string, n *yaml.Node) {
			d.mapping(path+".", n,
				field{"memory", set(d, &distro.Limits.Memory, pointer(limit(parseMemoryMax)))},
				field{"cpus", set(d, &distro.Limits.CPUs, pointer(limit(parseCPUMax)))},
				field{"pids", set(d, &distro.Limits.PIDs, pointer(limit(parsePIDsMax)))},
			)
		}},
		field{"idle", set(d, &distro.Idle, pointer(func(text string) (time.Duration, error) {
			if text == "default" {
				return 0, nil
			}
			return ParseIdle(text)
		}))},
		field{"autostart", set(d, &distro.Autostart, func(text string) (string, error) {
			if text == "false" || text == "no" { // "off", as a truth value
				text = "off"
			}
			return oneOf("vm", "login", "off")(text)
		})},
		field{"network", set(d, &distro.Network, oneOf(NetworkShared, NetworkIsolated))},
		field{"ports", func(path string, n *yaml.Node) {
			d.mapping(path+".", n, field{"auto", set(d, &distro.AutoPorts, parseBool)})
		}},
		field{"environment", func(path string, n *yaml.Node) { distro.Environment = d.environment(path, n) }},
		field{"packages", d.upTo(collectUnique(d, &distro.Packages, parsePackage))},
		field{"files", func(path string, n *yaml.Node) { distro.Files = d.files(path, n) }},
		field{"provision", d.upTo(func(path string, n *yaml.Node) {
			d.list(path, n, func(n *yaml.Node) { d.step(path, n, &distro.Provision) })
		})},
		field{"cache", set(d, &distro.Cache, parseBool)},
		field{"probes", d.upTo(func(path string, n *yaml.Node) {
			d.list(path, n, func(n *yaml.Node) { d.probe(path, n, &distro.Probes) })
		})},
	)
	return distro
}

// upTo refuses lists that are too long.
func (d *decoder) upTo(take func(string, *yaml.Node)) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if items := len(target(n).Content); items > maxItems {
			d.problem(n, "%s has %d items; there may be %d", path, items, maxItems)
			return
		}
		take(path, n)
	}
}

// collectUnique is collect for items that may be there once.
func collectUnique(d *decoder, to *[]string, parse func(string) (string, error)) func(string, *yaml.Node) {
	return collect(d, to, func(text string) (string, error) {
		v, err := parse(text)
		if err == nil && slices.Contains(*to, v) {
			err = fmt.Errorf("%s is in the list already", v)
		}
		return v, err
	})
}

func (d *decoder) environment(path string, n *yaml.Node) (env []string) {
	d.pairs(path, n, func(key string, k, v *yaml.Node) {
		if !isVariable.MatchString(key) {
			d.problem(k, "%s: %q cannot be the name of a variable", path, key)
			return
		}
		text := ""
		if !empty(v) {
			var ok bool
			if text, ok = value(d, path+"."+key, v, parseLine); !ok {
				return
			}
		}
		env = append(env, key+"="+text)
	})
	return env
}

func (d *decoder) files(path string, n *yaml.Node) (files []GuestFile) {
	d.pairs(path, n, func(key string, k, v *yaml.Node) {
		f := GuestFile{Mode: 0o644, At: d.at(k)}
		var err error
		if f.Path, err = parseGuestFile(key); err != nil {
			d.problem(k, "%s: %v", path, err)
			return
		}
		if len(files) == maxItems {
			d.problem(k, "%s has more than %d files", path, maxItems)
		}
		if len(files) >= maxItems {
			return
		}
		at := path + "." + key
		switch {
		case empty(v): // an empty file
		case target(v).Kind != yaml.MappingNode:
			set(d, &f.Content, parseText)(at, v)
		default:
			var has []string
			once := func(name string, take func(string, *yaml.Node)) field {
				return field{name, func(path string, n *yaml.Node) {
					if has = append(has, name); len(has) > 1 {
						d.problem(n, "%s: a file has either content or source", at)
						return
					}
					take(path, n)
				}}
			}
			d.mapping(path+"[].", v,
				once("content", set(d, &f.Content, parseText)),
				once("source", set(d, &f.Source, parseHostFile)),
				field{"mode", set(d, &f.Mode, parseFileMode)},
				field{"owner", set(d, &f.Owner, parseOwner)},
			)
			if f.Owner != "" && f.Home() {
				d.problem(k, "%s: a file in the home directory belongs to the default user; leave owner out", at)
			}
		}
		files = append(files, f)
	})
	return files
}

// step reads a script, or keys that say more.
func (d *decoder) step(path string, n *yaml.Node, to *[]Step) {
	s := Step{Mode: StepSystem, Name: fmt.Sprintf("step %d", len(*to)+1), At: d.at(n)}
	before := len(d.problems)
	script := set(d, &s.Script, parseText)
	if target(n).Kind != yaml.MappingNode {
		script(path, n)
	} else {
		d.mapping(path+"[].", n,
			field{"name", set(d, &s.Name, parseStepName)},
			field{"mode", set(d, &s.Mode, oneOf(StepSystem, StepUser, StepBoot, StepReady))},
			field{"script", script},
			field{"file", set(d, &s.File, parseHostFile)},
			field{"creates", set(d, &s.Creates, parseGuestFile)},
			field{"unless", set(d, &s.Unless, parseText)},
			field{"timeout", set(d, &s.Timeout, parseTimeout)},
		)
	}
	switch {
	case len(d.problems) > before:
	case s.Script == "" && s.File == "":
		d.problem(n, "%s: a step needs a script or a file", path)
	case s.Script != "" && s.File != "":
		d.problem(n, "%s: a step has either a script or a file", path)
	case slices.ContainsFunc(*to, func(o Step) bool { return o.Name == s.Name }):
		d.problem(n, "%s: a step before it is called %q already", path, s.Name)
	default:
		*to = append(*to, s)
	}
}

func (d *decoder) probe(path string, n *yaml.Node, to *[]Probe) {
	p := Probe{Timeout: probeTimeout, At: d.at(n)}
	before := len(d.problems)
	d.mapping(path+"[].", n,
		field{"script", set(d, &p.Script, parseText)},
		field{"port", set(d, &p.Port, parsePort)},
		field{"http", set(d, &p.HTTP, parseProbeURL)},
		field{"timeout", set(d, &p.Timeout, parseTimeout)},
	)
	if len(d.problems) > before {
		return
	}
	kinds := 0
	for _, there := range []bool{p.Script != "", p.Port != 0, p.HTTP != ""} {
		if there {
			kinds++
		}
	}
	if kinds != 1 {
		d.problem(n, "%s: a probe has one of script, port and http", path)
		return
	}
	*to = append(*to, p)
}

// pointer makes a parser of values that may be left out.
func pointer[T any](parse func(string) (T, error)) func(string) (*T, error) {
	return func(text string) (*T, error) {
		v, err := parse(text)
		return &v, err
	}
}

// limit makes a parser of limits: "none" is 0.
func limit(parse func(string) (int64, error)) func(string) (int64, error) {
	return func(text string) (int64, error) {
		if strings.EqualFold(text, "none") {
			return 0, nil
		}
		return parse(text)
	}
}
