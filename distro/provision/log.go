package provision

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lsub/lsub/printable"
)

// Log appends events to a file, each as a line of JSON. Several processes may do so at once. It
// is safe for concurrent use.
type Log struct {
	path string
	mu   sync.Mutex
	f    *os.File // nil until the first event
}

// NewLog returns the log of a file. The caller closes it.
func NewLog(path string) *Log { return &Log{path: path} }

// Tell appends an event. A log that cannot be written stops nobody.
func (l *Log) Tell(e Event) {
	b, err := json.Marshal(e)
	if err != nil {
		return // there is no such event
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		if l.f, err = os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			l.f = nil
			return
		}
	}
	l.f.Write(append(b, '\n'))
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return f.Close()
}

// LogLine returns a line of a log for people, with the local time; "" for one of another
// distro, which is any where distro is not "", or one that they need not see.
func LogLine(line []byte, distro string) string {
	var e Event
	if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil || distro != "" && !strings.EqualFold(e.Distro, distro) {
		return ""
	}
	text := e.String()
	switch e.Type {
	case Failed:
		text = "failed: " + e.Text
	case Done:
		if e.Kind == KindStep {
			text = fmt.Sprintf("%s: %s done", e.Distro, what(e.Kind, e.Name))
		}
	case End:
		text = "end: " + e.Name + " changes"
	}
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%s %s\n", e.Time.Local().Format(time.DateTime), printable.Text(text))
}
