package supervisor

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A message that comes without end is logged now and then, and others as they come.
func TestLimitedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(newLimitedHandler(slog.NewTextHandler(&b, nil)))
		for range 10000 {
			log.Warn("a listener makes no sense")
		}
		log.With("of", "another").Info("the VM is up")
		if n := strings.Count(b.String(), "\n"); n != logBurst+1 || !strings.Contains(b.String(), `msg="the VM is up" of=another`) {
			t.Errorf("%d lines, want %d:\n%s", n, logBurst+1, &b)
		}
		b.Reset()
		time.Sleep(logEvery)
		log.Warn("a listener makes no sense")
		log.Warn("a listener makes no sense")
		if n := strings.Count(b.String(), "\n"); n != 1 || !strings.Contains(b.String(), fmt.Sprint("dropped_before=", 10000-logBurst)) {
			t.Errorf("later: %s", &b)
		}
		b.Reset()
		for i := range 10000 { // messages that differ
			log.Warn(fmt.Sprint("message ", i))
		}
		if n := strings.Count(b.String(), "\n"); n > logMessages+logBurst {
			t.Errorf("%d lines of messages that differ", n)
		}
	})
}

func TestTrimLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	if err := trimLog(path); err != nil {
		t.Errorf("no log: %v", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := func(name string) int64 {
		t.Helper()
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	f.Write(bytes.Repeat([]byte("x"), maxLogSize))
	if err := trimLog(path); err != nil || size(path) != maxLogSize {
		t.Errorf("a log that is short enough: %v, %d bytes", err, size(path))
	}
	f.WriteString("the end")
	if err := trimLog(path); err != nil || size(path) != 0 || size(path+".old") != keptLog {
		t.Errorf("a long log: %v, %d bytes and %d", err, size(path), size(path+".old"))
	}
	old, err := os.ReadFile(path + ".old")
	if err != nil || !strings.HasSuffix(string(old), "xthe end") {
		t.Errorf("what is kept ends with %q, %v", old[max(0, len(old)-20):], err)
	}
	// Whoever has it open goes on at its beginning.
	f.WriteString("more")
	if b, err := os.ReadFile(path); err != nil || string(b) != "more" {
		t.Errorf("after it: %q, %v", b, err)
	}
}
