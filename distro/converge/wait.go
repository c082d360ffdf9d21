package converge

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

// Condition is what one can wait for.
type Condition struct {
	Stopped bool   // the distro does not run
	Port    uint16 // it runs, and something listens there on its localhost, TCP
}

// ParseCondition reads "ready", which is the zero Condition: the distro runs, and the probes
// of the profile succeed; "stopped"; or "port:8080".
func ParseCondition(text string) (c Condition, err error) {
	number, isPort := strings.CutPrefix(text, "port:")
	switch {
	case text == "ready":
		return c, nil
	case text == "stopped":
		return Condition{Stopped: true}, nil
	case isPort:
		n, err := strconv.ParseUint(number, 10, 16)
		if err == nil && n > 0 {
			return Condition{Port: uint16(n)}, nil
		}
		return c, fmt.Errorf("%q is no port; there are 1 to 65535", number)
	}
	return c, hint.New(fmt.Errorf("%q is nothing to wait for", text), "it is ready, stopped or port:NUMBER")
}

// TimeoutError says that what was waited for has not come.
type TimeoutError struct{ text string }

func (e *TimeoutError) Error() string { return e.text }

// ExitCode is the one of timeout(1).
func (*TimeoutError) ExitCode() int { return 124 }

// Wait waits until a condition of a distro holds. It starts nothing. timeout is 0 for none.
func Wait(ctx context.Context, s *distro.Service, d *machine.Distro, p *profile.Profile, c Condition, timeout time.Duration) error {
	limit, cancel := ctx, func() {}
	if timeout > 0 {
		limit, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	for {
		try, end := provision.Attempt(ctx, limit)
		why, err := missing(try, s, d, p, c)
		end()
		if err != nil || why == nil {
			return err
		}
		select {
		case <-limit.Done():
		case <-time.After(provision.Pause):
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &TimeoutError{fmt.Sprintf("%s is not %v after %v: %v", d.Name, c, timeout, why)}
	}
}

// String is a condition as an adjective.
func (c Condition) String() string {
	switch {
	case c.Stopped:
		return "stopped"
	case c.Port != 0:
		return fmt.Sprintf("listening on port %d", c.Port)
	}
	return "ready"
}

// missing tells why a condition does not hold, nil where it does. err says that it never will.
func missing(ctx context.Context, s *distro.Service, d *machine.Distro, p *profile.Profile, c Condition) (why, err error) {
	infos, err := s.List(ctx, distro.ListOptions{})
	if err != nil {
		return nil, err
	}
	r := provision.Runner{Target: target{s, d}, Distro: d.Name}
	now := distro.State("")
	for _, i := range infos {
		if i.ID == d.ID {
			now = i.State
		}
	}
	switch {
	case now == "":
		return nil, errors.New(d.Name + " was removed meanwhile")
	case c.Stopped && now != distro.StateStopped, !c.Stopped && now != distro.StateRunning:
		return errors.New("it is " + string(now)), nil
	case c.Stopped:
		return nil, nil
	case c.Port != 0:
		return r.Probe(ctx, profile.Probe{Port: c.Port}), nil
	}
	for _, want := range p.Distro(d.Name).Probes {
		if err := r.Probe(ctx, want); err != nil {
			return fmt.Errorf("%s: %w", provision.ProbeName(want), err), nil
		}
	}
	return nil, nil
}
