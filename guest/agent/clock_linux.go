package agent

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/guestv1"
)

// stepFrom is the difference from which on the clock is set. A smaller one is made
// up for by a clock that runs a little faster or slower.
const stepFrom = 128 * time.Millisecond

// AdjustClock makes up for what the VM's clock has lost: while the host slept or
// the VM stood still, and all the time by its own inaccuracy.
func (c control) AdjustClock(_ context.Context, req *connect.Request[guestv1.AdjustClockRequest]) (*connect.Response[guestv1.AdjustClockResponse], error) {
	var err error
	switch by := time.Duration(req.Msg.ByNs); {
	case by == 0:
	case by.Abs() >= stepFrom:
		c.a.log.Info("the clock is set", "by", by)
		var ts unix.Timespec
		if err = unix.ClockGettime(unix.CLOCK_REALTIME, &ts); err == nil {
			ts = unix.NsecToTimespec(ts.Nano() + int64(by))
			err = unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
		}
	default:
		_, err = unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: by.Microseconds()})
	}
	if err != nil {
		return nil, fmt.Errorf("move the clock: %w", err)
	}
	return connect.NewResponse(&guestv1.AdjustClockResponse{UnixNs: time.Now().UnixNano()}), nil
}
