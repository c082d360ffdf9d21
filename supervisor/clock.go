package supervisor

import (
	"context"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

const (
	// clockLook is the time between two looks at the host's clock. clockEvery is the
	// longest time between two clock syncs.
	clockLook, clockEvery = 2 * time.Second, time.Minute
	// clockJump is the least difference that means that the host's clock was set.
	clockJump = 50 * time.Millisecond
)

// moment is a moment by two clocks.
type moment struct {
	wall time.Time     // of day
	ran  time.Duration // that do not run while the host sleeps, and are never set
}

// clock is the service that has the guest's clock follow the host's: at once, after
// the host has slept, its clock was set or anything stood still, and now and then,
// as no two clocks run alike.
type clock struct{ log *slog.Logger }

func (clock) Name() string { return "clock" }

func (c clock) Run(ctx context.Context, vm VM) error {
	start := time.Now()
	now := func() moment {
		t := time.Now()
		return moment{t.Round(0), t.Sub(start)}
	}
	tick := time.NewTicker(clockLook)
	defer tick.Stop()
	last := now()
	var told time.Duration
	for stale := true; ; {
		switch at := now(); {
		case vm.Paused() != nil: // the VM would not hear it
			stale = true
		case stale || missed(last, at) || at.ran-told >= clockEvery:
			stale = c.set(ctx, vm.Client()) != nil
			told = at.ran
			last = now()
		default:
			last = at
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// missed tells whether between two looks more has happened than time passing.
func missed(last, now moment) bool {
	wall, ran := now.wall.Sub(last.wall), now.ran-last.ran
	return (wall-ran).Abs() > clockJump || ran > 2*clockLook
}

// clockNoise is the difference that is none.
const clockNoise = 10 * time.Millisecond

// set compares the guest's clock with the host's, and moves it.
func (c clock) set(ctx context.Context, client *guest.Client) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	start := time.Now()
	res, err := client.AdjustClock(ctx, connect.NewRequest(&guestv1.AdjustClockRequest{}))
	took := time.Since(start)
	if err == nil {
		late := clockLate(start, took, res.Msg.UnixNs)
		if late == 0 {
			return nil
		}
		// A distance stays true however long it is on the way.
		_, err = client.AdjustClock(ctx, connect.NewRequest(&guestv1.AdjustClockRequest{ByNs: int64(late)}))
		c.log.Debug("the VM's clock was late", "by", late, "err", err)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("the VM's clock may be wrong", "err", err)
	}
	return err
}

// clockLate returns how late the guest's clock is, below 0 how early, of what it
// showed at some moment of the call; 0 where it may be right.
func clockLate(start time.Time, took time.Duration, guestNs int64) time.Duration {
	late := start.Add(took / 2).Round(0).Sub(time.Unix(0, guestNs))
	if late.Abs() <= took/2+clockNoise {
		return 0
	}
	return late
}
