package templates_test

import (
	"strings"
	"testing"

	"github.com/lsub/lsub/profile"
	"github.com/lsub/lsub/profile/templates"
)

// TestTemplates wants templates that are valid and short, and say what they are.
func TestTemplates(t *testing.T) {
	names := templates.Names()
	if len(names) < 11 {
		t.Errorf("there are %v", names)
	}
	for _, name := range names {
		data, ok := templates.Read(name)
		if !ok {
			t.Fatal(name)
		}
		p, err := profile.Parse(name, data)
		if err != nil {
			t.Error(err)
			continue
		}
		if n := strings.Count(string(data), "\n"); n > 30 {
			t.Errorf("%s has %d lines", name, n)
		}
		if about := templates.About(data); len(p.DistroNames()) == 0 || about == "" || strings.HasPrefix(about, "#") || !strings.HasSuffix(about, ".") {
			t.Errorf("%s: %q, %v", name, about, p.DistroNames())
		}
		for _, d := range p.Distros {
			for _, s := range d.Provision {
				if s.File != "" {
					t.Errorf("%s: a template has no files beside it", name)
				}
			}
		}
	}
	if _, ok := templates.Read("../default"); ok {
		t.Error("a path is a template")
	}
}
