package supervisor

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guesttest"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/machine"
)

func TestBootFails(t *testing.T) {
	why := hint.New(errors.New("no hypervisor"), "install one")
	for name, c := range map[string]struct {
		fake *hvtest.Fake
		want string
	}{
		"check":  {&hvtest.Fake{CheckErr: why}, "no hypervisor"},
		"start":  {&hvtest.Fake{StartErr: why}, "start lsub-default: no hypervisor"},
		"memory": {&hvtest.Fake{HostMemory: 1 << 20}, "not enough memory"},
		"dies":   {&hvtest.Fake{Guest: func(*hvtest.Guest) error { return errors.New("panic") }}, "the VM ended while it booted: vm lsub-default: panic; its console is empty"},
		"off":    {&hvtest.Fake{Guest: func(*hvtest.Guest) error { return nil }}, "the VM ended while it booted: it powered off"},
		"mute":   {&hvtest.Fake{Guest: saysNonsense}, "the guest's first word: guest protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			m := openTest(t)
			s, err := superviseWith(t, m, c.fake)
			if err == nil || !strings.Contains(err.Error(), c.want) || hint.Of(err) == "" {
				t.Errorf("%v (hint %q), want %q", err, hint.Of(err), c.want)
			}
			// Who tries again at once is not told that it runs.
			if st, err := m.Status(t.Context()); err == nil && !st.Stopping {
				t.Error("after the failure, the VM is said to run")
			}
			if got := <-s.ended; got == nil {
				t.Error("Run = nil")
			}
			if rec := m.Record(); rec == nil || rec.LastEnd() != "" {
				t.Errorf("record %+v: the failure was reported already", rec)
			}
		})
	}
}

func saysNonsense(g *hvtest.Guest) error {
	if err := g.AwaitHost(guest.HelloPort); err != nil {
		return err
	}
	c, err := g.Dial(guest.HelloPort)
	if err != nil {
		return err
	}
	fmt.Fprintln(c, "SSH-2.0-OpenSSH")
	<-g.Context().Done()
	return nil
}

// TestForceWhileBooting ends a VM that does not come up.
func TestForceWhileBooting(t *testing.T) {
	m := openTest(t)
	booting := make(chan struct{})
	fake := &hvtest.Fake{Guest: func(g *hvtest.Guest) error {
		close(booting)
		<-g.Context().Done()
		return nil
	}}
	started := make(chan error, 1)
	go func() {
		_, err := superviseWith(t, m, fake)
		started <- err
	}()
	<-booting
	if st, err := m.Status(t.Context()); err != nil || len(st.Boot) != 0 {
		t.Errorf("Status while booting: %v, %v", st, err)
	}
	if err := m.Shutdown(t.Context(), true); err != nil {
		t.Error(err)
	}
	if err := <-started; err == nil || !strings.Contains(err.Error(), "the start was cut short") {
		t.Errorf("the start: %v", err)
	}
}

// A kernel that crashes while it boots is booted once more, and no further.
func TestCrashAtBoot(t *testing.T) {
	for crashes, want := range map[int]bool{1: true, 2: false} {
		m := openTest(t)
		var said string
		m = reopen(t, m, func(c *machine.Config) { c.Warn = func(text string) { said += text } })
		fake := &hvtest.Fake{}
		fake.Guest = func(g *hvtest.Guest) error {
			if len(fake.VMs()) <= crashes {
				io.WriteString(g.Console(), "Kernel panic\n")
				return fmt.Errorf("VM x: %w", hypervisor.ErrGuestCrashed)
			}
			return guesttest.Run(g, guesttest.Options{Version: m.Config().Version, Disk: m.DataDisk()})
		}
		s, err := superviseWith(t, m, fake)
		if (err == nil) != want || len(fake.VMs()) != 2 {
			t.Errorf("%d crashes: %v, %d boots", crashes, err, len(fake.VMs()))
		}
		if !strings.Contains(said, "booted once more") {
			t.Errorf("%d crashes: said %q", crashes, said)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "Kernel panic") || !errors.Is(<-s.ended, hypervisor.ErrGuestCrashed) {
				t.Errorf("%d crashes: %v", crashes, err)
			}
			continue
		}
		if st, err := m.Status(t.Context()); err != nil || st.Stopping {
			t.Errorf("Status = %v, %v", st, err)
		}
		if err := m.Shutdown(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
}
