// Package limiter bounds how many things are open at once.
package limiter

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Limiter counts things that are open at once, up to a maximum. It is safe for
// concurrent use.
type Limiter struct {
	log     *slog.Logger
	max     int64
	refusal string
	open    atomic.Int64
	warned  atomic.Int64 // Unix time of the last warning
}

// New returns a limiter for at most max things. It logs the refusal when one more is refused.
func New(log *slog.Logger, max int, refusal string) *Limiter {
	return &Limiter{log: log, max: int64(max), refusal: refusal}
}

// TryAcquire counts one more thing, which Release gives back. At the maximum it returns
// false and logs the refusal with args.
func (l *Limiter) TryAcquire(args ...any) bool {
	if l.open.Add(1) <= l.max {
		return true
	}
	l.open.Add(-1)
	l.Warn(l.refusal, args...)
	return false
}

// Release gives back what TryAcquire has taken.
func (l *Limiter) Release() { l.open.Add(-1) }

// InUse returns how many things are open.
func (l *Limiter) InUse() int { return int(l.open.Load()) }

// warnEvery is the shortest interval in seconds between two warnings of a limiter: a
// guest that floods the host must not flood its log.
const warnEvery = 10

// Warn logs a warning about the limit, unless the limiter has warned a moment ago.
func (l *Limiter) Warn(text string, args ...any) {
	now, last := time.Now().Unix(), l.warned.Load()
	if now-last >= warnEvery && l.warned.CompareAndSwap(last, now) {
		l.log.Warn(text, append(args, "limit", l.max)...)
	}
}
