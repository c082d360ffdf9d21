package forward

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// limiter counts what there is at once.
type limiter struct {
	max    int64
	n      atomic.Int64
	warned atomic.Int64 // Unix time of the last warning
}

// take counts one more, where there is room.
func (l *limiter) take() bool {
	if l.n.Add(1) > l.max {
		l.n.Add(-1)
		return false
	}
	return true
}

func (l *limiter) give() { l.n.Add(-1) }

// warnEvery is the least time between two warnings of one limit: a guest that
// floods the host must not flood its log.
const warnEvery = 10

// warn logs that the limit was reached, now and then.
func (l *limiter) warn(log *slog.Logger, text string, args ...any) {
	now, last := time.Now().Unix(), l.warned.Load()
	if now-last >= warnEvery && l.warned.CompareAndSwap(last, now) {
		log.Warn(text, append(args, "limit", l.max)...)
	}
}
