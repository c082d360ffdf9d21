package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/profile"
)

// nester is a driver whose VMs can run VMs, if err is nil.
type nester struct {
	hypervisor.Driver
	err      error
	emulates bool
}

func (n nester) CheckNested(context.Context) error { return n.err }
func (n nester) Emulates(context.Context) bool     { return n.emulates }

// TestNested: VMs in the VM are there where the hardware has them, unless the profile says
// otherwise.
func TestNested(t *testing.T) {
	cannot := hint.New(errors.New("the processor cannot"), "get another one")
	for name, c := range map[string]struct {
		profile string
		driver  hypervisor.Driver
		want    bool
		err     string
	}{
		"hardware":                 {"", nester{}, true, ""},
		"hardware, switched off":   {"nested: false", nester{}, false, ""},
		"hardware that cannot":     {"", nester{err: cannot}, false, ""},
		"wanted, and it cannot":    {"nested: true", nester{err: cannot}, false, "nested: the processor cannot"},
		"emulation":                {"", nester{emulates: true}, false, ""},
		"emulation, wanted":        {"nested: true", nester{emulates: true}, true, ""},
		"another driver":           {"", &hvtest.Fake{}, false, ""},
		"another driver, wanted":   {"nested: true", &hvtest.Fake{}, false, "runs no VMs in VMs"},
		"another driver, unwanted": {"nested: false", &hvtest.Fake{}, false, ""},
	} {
		p, err := profile.Parse("profile.yaml", []byte(c.profile))
		if err != nil {
			t.Fatal(err)
		}
		got, err := vmNested(t.Context(), p, c.driver)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err != nil && hint.Of(err) == "" {
			t.Errorf("%s: no hint for %v", name, err)
		}
	}
}
