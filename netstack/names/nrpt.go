package names

import (
	"net/netip"
	"slices"
	"strings"
)

// Rule is a rule of Windows' name resolution policy table (NRPT): names, and the servers to ask
// for them. VPNs and administrators make such rules.
// https://learn.microsoft.com/openspecs/windows_protocols/ms-gpnrpt
type Rule struct {
	// Names are ".corp.example" for a domain, "host.corp.example" for a name, "." for all names.
	Names []string
	// Servers are addresses with semicolons between them.
	Servers string
	// Options tell what the rule is about: see [RuleServers].
	Options uint32
}

// RuleServers is the bit of a rule's options that says that its servers count. Other rules are
// about DNSSEC and DirectAccess.
const RuleServers = 8

// withRules adds the policy's rules to a configuration. A rule for one name serves those below
// it too; prefixes ("host" of any domain) and reverse names of networks are not taken.
func (c Resolv) withRules(rules []Rule) Resolv {
	for _, r := range rules {
		if r.Options&RuleServers == 0 {
			continue
		}
		var servers []netip.AddrPort
		for _, text := range strings.FieldsFunc(r.Servers, func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
			if a, err := netip.ParseAddr(text); err == nil {
				servers = append(servers, netip.AddrPortFrom(a.Unmap(), 53))
			}
		}
		if len(servers) == 0 {
			continue
		}
		for _, name := range r.Names {
			if name == "." {
				c.Servers = servers
				continue
			}
			domain := plainName(strings.TrimPrefix(name, "."))
			if !strings.Contains(name, ".") || domain == "" || slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Domain == domain }) {
				continue
			}
			c.Routes = append(c.Routes, Route{domain, servers})
		}
	}
	return c
}
