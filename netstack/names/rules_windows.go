package names

import (
	"slices"

	"golang.org/x/sys/windows/registry"
)

// policyKeys have the rules of group policies and this machine's own, which count where there
// are none of a policy.
var policyKeys = []string{
	`SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig`,
	`SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig`,
}

// readRules returns the rules of the first key that has some. A rule that cannot be read is
// left out, as Windows does.
func readRules(keys []string) []Rule {
	for _, path := range keys {
		k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.ENUMERATE_SUB_KEYS)
		if err != nil {
			continue
		}
		names, err := k.ReadSubKeyNames(-1)
		k.Close()
		if err != nil || len(names) == 0 {
			continue
		}
		slices.Sort(names)
		var rules []Rule
		for _, name := range names {
			if r, err := readRule(path + `\` + name); err == nil {
				rules = append(rules, r)
			}
		}
		return rules
	}
	return nil
}

func readRule(path string) (r Rule, err error) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE)
	if err != nil {
		return r, err
	}
	defer k.Close()
	if r.Names, _, err = k.GetStringsValue("Name"); err != nil {
		return r, err
	}
	options, _, err := k.GetIntegerValue("ConfigOptions")
	if err != nil {
		return r, err
	}
	r.Options = uint32(options)
	if r.Options&RuleServers != 0 {
		r.Servers, _, err = k.GetStringValue("GenericDNSServers")
	}
	return r, err
}
