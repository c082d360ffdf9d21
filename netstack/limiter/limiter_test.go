package limiter

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestLimit refuses what is too much, and says so once.
func TestLimit(t *testing.T) {
	var log bytes.Buffer
	l := New(slog.New(slog.NewTextHandler(&log, nil)), 2, "too many things")
	for i, want := range []bool{true, true, false, false} {
		if got := l.TryAcquire("attempt", i+1); got != want {
			t.Errorf("attempt %d: %v", i+1, got)
		}
	}
	if n := l.InUse(); n != 2 {
		t.Errorf("%d are in use, want 2", n)
	}
	if l.Release(); !l.TryAcquire() {
		t.Error("a place that was given back is not there")
	}
	if n := strings.Count(log.String(), `msg="too many things" attempt=3 limit=2`); n != 1 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("want one line:\n%s", log.String())
	}
}
