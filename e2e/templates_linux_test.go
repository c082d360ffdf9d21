package e2e

import (
	"os"
	"strings"
	"testing"

	builtin "github.com/lsub/lsub/profile/templates"
)

// proofs say of each template in which distro a line of shell shows that it is of use, and what
// the line prints.
var proofs = map[string]struct{ distro, line, prints string }{
	"agent-sandbox": {"sandbox", "id -un; test -z \"$(ls -A /mnt/host 2>/dev/null)\" && echo alone", "agent\nalone"},
	"ci-runner":     {"ci", "cc --version >/dev/null && git --version | cut -d' ' -f1", "git"},
	"default":       {"debian", "git --version | cut -d' ' -f1", "git"},
	"docker":        {"docker", "docker version -f '{{.Server.Os}}'", "linux"},
	"go-dev":        {"go", "cd ~/go/hello && go run main.go 2>&1", "hello"},
	"k3s-ready":     {"k3s", "cat /proc/sys/net/ipv4/ip_forward", "1"},
	"matrix":        {"bullseye", "cut -d. -f1 /etc/debian_version", "11"},
	"node-dev":      {"node", "node -p '6 * 7'", "42"},
	"podman":        {"podman", "podman info -f '{{.Host.Security.Rootless}}'", "true"},
	"postgres":      {"postgres", "PGPASSWORD=secret psql -h localhost -U app app -tAc 'SELECT 6 * 7'", "42"},
	"python-dev":    {"python", ". ~/.bash_aliases; python -c 'import sys; print(sys.prefix == sys.base_prefix)'", "False"},
}

// inSuite are the templates of every run; 'task test:templates' has all.
var inSuite = map[string]bool{"agent-sandbox": true}

// TestTemplates makes the distros of templates, sees that they are of use, and that a second
// 'lsub up' does nothing.
func TestTemplates(t *testing.T) {
	for _, name := range builtin.Names() {
		proof, ok := proofs[name]
		if !ok {
			t.Errorf("nothing proves the template %s", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			if !inSuite[name] && os.Getenv("LSUB_TEST_TEMPLATES") == "" {
				t.Skip("LSUB_TEST_TEMPLATES=1 makes all templates ('task test:templates')")
			}
			h := fresh(t)
			h.ok(t, "profile", "new", "--template", name)
			h.ok(t, "up", "--yes")
			if out := h.ok(t, "up"); out != "nothing to do" {
				t.Errorf("a second run: %s", out)
			}
			if out := h.ok(t, "exec", proof.distro, "--", "sh", "-c", proof.line); !strings.Contains(out, proof.prints) {
				t.Errorf("%s prints %q, want %q", proof.line, out, proof.prints)
			}
		})
	}
}
