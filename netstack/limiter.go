package netstack

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// limiter counts what the guest has the host hold open, and says so where that
// becomes too much.
type limiter struct {
	what string
	max  int
	log  *slog.Logger

	mu     sync.Mutex
	n      int
	warned time.Time
}

// warnEvery is how often a limit that is hit is worth a line in the log.
const warnEvery = 10 * time.Second

func newLimiter(what string, most int, log *slog.Logger) *limiter {
	return &limiter{what: what, max: most, log: log}
}

// enter takes a place, which leave gives back; false where there is none.
func (l *limiter) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n < l.max {
		l.n++
		return true
	}
	if time.Since(l.warned) > warnEvery {
		l.warned = time.Now()
		l.log.Warn("netstack: the guest has all the "+l.what+" that it may; more are refused", "limit", l.max)
	}
	return false
}

// count returns how many places are taken.
func (l *limiter) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

func (l *limiter) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
