package netstack

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// bridgeLogs has what gvisor-tap-vsock logs, through logrus' one global
// logger, go to ours. The last network that is made gets it.
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

// Fire logs an entry. What they call an error is a connection that failed or a
// card that went away, which is every day's business here.
func (h logHook) Fire(e *logrus.Entry) error {
	h.log.Log(context.Background(), slog.LevelDebug, "netstack: "+e.Message)
	return nil
}
