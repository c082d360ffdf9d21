package supervisor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lsub/lsub/atomicfile"
)

const (
	// maxLogSize is the size in bytes at which a log of a running VM is put aside, and
	// keptLog how much of it is kept in NAME.old.
	maxLogSize, keptLog = 4 << 20, 1 << 20
	// logCheck is how often the sizes are looked at.
	logCheck = time.Second
)

// logs is the service that keeps the logs of a VM short: what a guest writes to its
// console, and has the supervisor log, must not fill the host's disk.
type logs struct{ s *supervisor }

func (logs) Name() string { return "size of the logs" }

func (l logs) Run(ctx context.Context, _ VM) error {
	tick := time.NewTicker(logCheck)
	defer tick.Stop()
	for {
		for _, path := range []string{l.s.m.ConsoleLog(), l.s.m.SupervisorLog(), l.s.m.ProvisionLog()} {
			if err := trimLog(path); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// trimLog empties a log that has become too large, and keeps its end in path.old. Others
// append to the file, so it is not replaced.
func trimLog(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= maxLogSize {
		return err
	}
	end, err := io.ReadAll(io.NewSectionReader(f, info.Size()-keptLog, keptLog))
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path+".old", end, 0o600); err != nil {
		return err
	}
	return f.Truncate(0)
}

const (
	// logBurst is how many lines of one message are logged at once, and logEvery the time
	// in which one more is.
	logBurst, logEvery = 20, 5 * time.Second
	// logMessages is how many messages are told apart. All others share one count.
	logMessages = 256
)

// newLimitedHandler returns a handler that drops lines of h's when a message comes too
// often: most of what a supervisor logs is of a guest's doing. The next line of the message
// tells how many were dropped.
func newLimitedHandler(h slog.Handler) slog.Handler {
	return limitedHandler{h, &logCounts{by: map[string]*logCount{}}}
}

type limitedHandler struct {
	slog.Handler
	counts *logCounts
}

// logCounts is shared by the handlers that were made of one.
type logCounts struct {
	mu sync.Mutex
	by map[string]*logCount // by message
}

// logCount is how many lines of a message may come.
type logCount struct {
	left    float64
	at      time.Time // when left was right
	dropped int
}

func (h limitedHandler) Handle(ctx context.Context, r slog.Record) error {
	dropped, ok := h.counts.take(r.Message, r.Time)
	if !ok {
		return nil
	}
	if dropped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("dropped_before", dropped))
	}
	return h.Handler.Handle(ctx, r)
}

// take tells whether a line may come, and how many before it did not.
func (c *logCounts) take(message string, now time.Time) (dropped int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.by[message]
	if n == nil && len(c.by) >= logMessages {
		message = ""
		n = c.by[message]
	}
	if n == nil {
		n = &logCount{left: logBurst, at: now}
		c.by[message] = n
	}
	n.left = min(logBurst, n.left+float64(now.Sub(n.at))/float64(logEvery))
	n.at = now
	if n.left < 1 {
		n.dropped++
		return 0, false
	}
	n.left--
	dropped, n.dropped = n.dropped, 0
	return dropped, true
}

func (h limitedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limitedHandler{h.Handler.WithAttrs(attrs), h.counts}
}

func (h limitedHandler) WithGroup(name string) slog.Handler {
	return limitedHandler{h.Handler.WithGroup(name), h.counts}
}
