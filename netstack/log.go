package netstack

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// bridgeLogs redirects gvisor-tap-vsock's log to ours. It logs through logrus' one global
// logger, so the last network that is made gets it.
func bridgeLogs(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.DebugLevel)
	hooks := logrus.LevelHooks{}
	hooks.Add(logHook{log})
	std.ReplaceHooks(hooks)
}

// logHook is a logrus.Hook.
type logHook struct{ log *slog.Logger }

func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire logs an entry. The library's errors are failed connections and cards that went away,
// which are normal here.
func (h logHook) Fire(e *logrus.Entry) error {
	h.log.Log(context.Background(), slog.LevelDebug, "netstack: "+e.Message)
	return nil
}
