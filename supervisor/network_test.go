package supervisor

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/netstack"
	"github.com/lsub/lsub/profile"
)

// TestChooseSubnet takes the routes of this host as they are.
func TestChooseSubnet(t *testing.T) {
	home := t.TempDir()
	m, err := machine.Open(machine.Config{Profile: "default", Paths: machine.Paths{Home: home}})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := netstack.HostRoutes()
	if err != nil {
		t.Fatal(err)
	}
	var warned bytes.Buffer
	warn := slog.New(slog.NewTextHandler(&warned, nil))
	choose := func(p *profile.Profile) netip.Prefix {
		t.Helper()
		subnet, err := chooseSubnet(m, p, warn)
		if err != nil {
			t.Fatal(err)
		}
		return subnet
	}

	first := choose(profile.Default())
	if r, taken := netstack.Conflict(first, routes); taken {
		t.Errorf("%v is taken by %v", first, r)
	}
	// It stays, also where another one would be chosen now.
	kept := netip.MustParsePrefix("198.18.99.0/24")
	if err := m.KeepSubnet(kept); err != nil {
		t.Fatal(err)
	}
	if got := choose(profile.Default()); got != kept {
		t.Errorf("%v, want %v as before", got, kept)
	}
	set, err := profile.Parse("p.yaml", []byte("network: {subnet: 198.18.98.0/24}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := choose(set); got != set.Network.Subnet {
		t.Errorf("%v, want the profile's %v", got, set.Network.Subnet)
	}
	if warned.Len() > 0 {
		t.Errorf("it warns: %s", warned.String())
	}

	// What the host uses by now is left, with a word about it.
	var used netip.Prefix
	for _, r := range routes {
		if r.Prefix.Bits() >= 8 && r.Prefix.Bits() <= 28 {
			used = r.Prefix
		}
	}
	if used.IsValid() {
		if err := m.KeepSubnet(used); err != nil {
			t.Fatal(err)
		}
		if got := choose(profile.Default()); got.Overlaps(used) || !strings.Contains(warned.String(), used.String()) {
			t.Errorf("%v, although the host uses %v; said %q", got, used, warned.String())
		}
		warned.Reset()
		set.Network.Subnet = used
		if got := choose(set); got != used || !strings.Contains(warned.String(), "p.yaml:1:19: the VM cannot reach "+used.String()) {
			t.Errorf("%v, said %q", got, warned.String())
		}
	}

	if err := os.WriteFile(filepath.Join(m.Dir(), "network.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := chooseSubnet(m, profile.Default(), warn); err == nil || !strings.Contains(err.Error(), "network.json:1") {
		t.Errorf("a broken file: %v", err)
	}
}
