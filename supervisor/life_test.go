package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestLife(t *testing.T) {
	l := newLife()
	expect := func(when string, p phase, reached phase) {
		t.Helper()
		if l.now() != p {
			t.Errorf("%s: %v, want %v", when, l.now(), p)
		}
		for q := range phases {
			if got := isClosed(l.after(q)); got != (q <= reached) {
				t.Errorf("%s: %v is reached: %v", when, q, got)
			}
		}
	}
	expect("at first", booting, booting)
	l.enter(running)
	expect("up", running, running)
	l.ask()
	l.ask()
	expect("asked twice", stopping, stopping)
	l.refuse()
	expect("refused once", stopping, stopping)
	l.refuse()
	expect("refused twice", running, stopping)
	if l.wasAsked() {
		t.Error("an ask is left")
	}
	l.ask()
	l.enter(gone)
	l.refuse() // too late
	expect("gone", gone, gone)
	l.enter(closed)
	expect("closed", closed, closed)
}

// An end that was asked for while the VM booted holds once it is up.
func TestLifeAskedWhileBooting(t *testing.T) {
	l := newLife()
	l.ask()
	if l.now() != booting || l.isStopping() {
		t.Errorf("%v", l.now())
	}
	l.enter(running)
	if !l.isStopping() {
		t.Errorf("%v", l.now())
	}
}

func TestLifeIllegal(t *testing.T) {
	for from := range phases {
		for to := range phases {
			l := newLife()
			l.phase = from
			legal := false
			for _, p := range transitions[from] {
				legal = legal || p == to
			}
			panicked := func() (panicked bool) {
				defer func() { panicked = recover() != nil }()
				l.enter(to)
				return false
			}()
			if panicked == legal {
				t.Errorf("from %v to %v: panicked: %v, legal: %v", from, to, panicked, legal)
			}
		}
	}
}

// flaky is a service that fails until it has run three times.
type flaky struct{ runs int }

func (*flaky) Name() string { return "flaky" }

func (f *flaky) Run(context.Context, VM) error {
	if f.runs++; f.runs < 3 {
		return errors.New("not yet")
	}
	return nil
}

func TestServiceRunsAgain(t *testing.T) {
	s := &supervisor{life: newLife(), log: slog.New(slog.DiscardHandler)}
	f := &flaky{}
	s.runServices(t.Context(), []Service{f})
	if f.runs != 3 {
		t.Errorf("it ran %d times", f.runs)
	}
}
