package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"strings"
)

//go:embed rules.txt
var rulesText string

// rule keeps or drops the kernel modules below a path.
type rule struct {
	keep   bool
	prefix string // of the path below /lib/modules/RELEASE
	reason string
}

// parseRules reads rules.txt, whose head describes its form.
func parseRules(text string) ([]rule, error) {
	var rules []rule
	seen := map[string]bool{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		prefix, reason, _ := strings.Cut(strings.TrimSpace(rest), " ")
		reason = strings.TrimSpace(reason)
		if verb != "keep" && verb != "drop" || prefix == "" || reason == "" {
			return nil, fmt.Errorf("rules.txt:%d: want 'keep|drop PREFIX REASON'", n)
		}
		if seen[prefix] {
			return nil, fmt.Errorf("rules.txt:%d: second rule for %s", n, prefix)
		}
		seen[prefix] = true
		rules = append(rules, rule{verb == "keep", prefix, reason})
	}
	return rules, sc.Err()
}

// keeps tells whether the module at path stays: the longest prefix decides,
// and what no rule names goes.
func keeps(rules []rule, path string) bool {
	longest, keep := -1, false
	for _, r := range rules {
		if len(r.prefix) > longest && strings.HasPrefix(path, r.prefix) {
			longest, keep = len(r.prefix), r.keep
		}
	}
	return keep
}
