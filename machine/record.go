package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/lsub/lsub/printable"
)

// recordVersion is the format of supervisor.json.
const recordVersion = 1

// Record is what a supervisor leaves for the commands: how to reach it, and
// when it has ended, why. One that says nothing of an end although the lock is
// free is of a supervisor that was killed.
type Record struct {
	Version int       `json:"version"`
	Lsub    string    `json:"lsub"` // version
	PID     int       `json:"pid"`
	Socket  string    `json:"socket"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Clean   bool      `json:"clean,omitempty"`  // the VM was shut down
	Forced  bool      `json:"forced,omitempty"` // by cutting its power
	Reason  string    `json:"reason,omitempty"`

	Settings map[string]string `json:"settings,omitempty"` // the profile's, of the VM; see [profile.Profile.Settings]
}

func (m *Machine) WriteRecord(r *Record) error {
	r.Version = recordVersion
	return writeJSON(m.path("supervisor.json"), r)
}

// Record returns nil where no supervisor ever ran. A record that cannot be
// read is as good as none.
func (m *Machine) Record() *Record {
	var r Record
	if err := readJSON(m.path("supervisor.json"), recordVersion, &r, m.cfg.Logger); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.cfg.Logger.Warn("the supervisor's record is skipped", "err", err)
		}
		return nil
	}
	return &r
}

// LastEnd says in one line why the last VM ended, where that was no shutdown.
// Only the supervisor after it may ask.
func (r *Record) LastEnd() string {
	switch {
	case r == nil || r.Clean:
		return ""
	case r.Ended.IsZero():
		return fmt.Sprintf("the supervisor (process %d) was killed, and its VM with it; starting afresh", r.PID)
	}
	return fmt.Sprintf("the last VM ended by itself: %s; starting afresh", r.Reason)
}

// maxTail is the most of a log that an error quotes, in bytes.
const maxTail = 2 << 10

// Tail returns the last lines of a file, of those after offset bytes; "" where
// there are none.
func Tail(path string, lines int, offset int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return ""
	}
	offset = max(offset, fi.Size()-maxTail)
	b := make([]byte, max(0, fi.Size()-offset))
	n, _ := f.ReadAt(b, offset)
	all := strings.Split(strings.TrimSpace(printable.Text(strings.ReplaceAll(string(b[:n]), "\r\n", "\n"))), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
