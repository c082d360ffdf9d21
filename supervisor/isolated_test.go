package supervisor

import (
	"net/netip"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

func TestAddresses(t *testing.T) {
	m, err := machine.Open(machine.Config{Profile: "default", Paths: machine.Paths{Home: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Update(t.Context(), func(r *machine.Registry) error {
		for _, name := range []string{"Web", "api", "plain"} {
			if err := r.Add(machine.Distro{ID: name + "-1", Name: name}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse("p.yaml", []byte("distros: {web: {network: isolated}, API: {network: isolated}, gone: {network: isolated}}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := isolateDistros(t.Context(), m, p); err != nil {
		t.Fatal(err)
	}
	a := &addresses{machine: m}
	shared, own := netip.MustParseAddr("192.168.127.2"), netip.MustParseAddr("192.168.127.7")
	check := func(when string, want map[string]netip.Addr) {
		t.Helper()
		for _, name := range []string{"web", "api", "plain", "nobody"} {
			addr, ok := a.lookup(name, shared)
			if addr != want[name] || ok != want[name].IsValid() {
				t.Errorf("%s: %s has %v, %v, want %v", when, name, addr, ok, want[name])
			}
		}
	}
	check("none runs", map[string]netip.Addr{"plain": shared})
	a.set([]*guestv1.OwnNetwork{{Distro: "Web-1", Address: own.String()}, {Distro: "api-1"}})
	check("two run", map[string]netip.Addr{"plain": shared, "web": own})
	if got := a.name(own); got != "web" {
		t.Errorf("%v is called %q", own, got)
	}
	if got := a.name(shared); got != "" {
		t.Errorf("%v is called %q", shared, got)
	}
	// The profile does not isolate them any more; one runs on as it is.
	if err := isolateDistros(t.Context(), m, profile.Default()); err != nil {
		t.Fatal(err)
	}
	a.set([]*guestv1.OwnNetwork{{Distro: "Web-1", Address: own.String()}})
	check("one is left", map[string]netip.Addr{"plain": shared, "api": shared, "web": own})
	a.set(nil)
	check("all share the VM's", map[string]netip.Addr{"plain": shared, "api": shared, "web": shared})
}
