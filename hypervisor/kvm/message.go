package kvm

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/digitalocean/go-qemu/qmp"
)

// messageKind is the kind of a line from QEMU's monitor.
type messageKind int

const (
	messageOther    messageKind = iota // unknown
	messageGreeting                    // the first line
	messageAnswer                      // to a command: success or error
	messageEvent
)

// message is a line from QEMU's monitor (QEMU's docs/interop/qmp-spec).
type message struct {
	kind    messageKind
	event   qmp.Event // for an event
	version version   // for a greeting
}

// decodeMessage reads a line from QEMU's monitor. QEMU is not trusted here: it runs the
// guest, which might have taken it over.
func decodeMessage(line []byte) (message, error) {
	var m struct {
		QMP *struct {
			Version qmp.Version `json:"version"`
		} `json:"QMP"`
		Return json.RawMessage `json:"return"`
		Error  json.RawMessage `json:"error"`
		qmp.Event
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("message of QEMU: %w", err)
	}
	switch {
	case m.QMP != nil:
		q := m.QMP.Version.QEMU
		return message{kind: messageGreeting, version: version{q.Major, q.Minor, q.Micro}}, nil
	case m.Event.Event != "":
		return message{kind: messageEvent, event: m.Event}, nil
	case m.Return != nil || m.Error != nil:
		return message{kind: messageAnswer}, nil
	}
	return message{}, nil
}

// shutdown is QEMU's reason for the VM's end (event SHUTDOWN).
type shutdown struct {
	reason string // "guest-shutdown", "guest-reset", "guest-panic", "host-qmp-quit", "host-signal", …
}

// decodeShutdown reads the event SHUTDOWN. ok is false for other events.
func decodeShutdown(e qmp.Event) (s shutdown, ok bool) {
	if e.Event != "SHUTDOWN" {
		return shutdown{}, false
	}
	s.reason, _ = e.Data["reason"].(string)
	return s, true
}

// writeFailure is a write that the host has refused.
type writeFailure struct {
	node   string // the block node, as in "disk0"
	full   bool   // the file system has no room; otherwise a quota, a limit or a broken disk
	reason string // the system's text for the error
}

// maxReason is the maximum length of a reason in messages, in bytes.
const maxReason = 100

// decodeWriteFailure reads the event BLOCK_IO_ERROR of a write that has paused the VM. ok is
// false for other events.
func decodeWriteFailure(e qmp.Event) (w writeFailure, ok bool) {
	if e.Event != "BLOCK_IO_ERROR" || e.Data["action"] != "stop" {
		return writeFailure{}, false
	}
	w.node, _ = e.Data["node-name"].(string)
	w.full, _ = e.Data["nospace"].(bool)
	w.reason, _ = e.Data["reason"].(string)
	if w.reason == "" {
		w.reason = "write error"
	}
	w.reason = strings.ToLower(w.reason[:1]) + w.reason[1:min(len(w.reason), maxReason)]
	return w, true
}
