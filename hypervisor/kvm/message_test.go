package kvm

import (
	"testing"
)

func TestDecodeMessage(t *testing.T) {
	for _, c := range []struct {
		line string
		kind messageKind
	}{
		{greeting, messageGreeting},
		{`{"return": {}}`, messageAnswer},
		{`{"return": null, "id": "x"}`, messageAnswer},
		{`{"error": {"class": "GenericError", "desc": "x"}}`, messageAnswer},
		{event("STOP"), messageEvent},
		{`{}`, messageOther},
		{`{"event": ""}`, messageOther},
	} {
		m, err := decodeMessage([]byte(c.line))
		if err != nil || m.kind != c.kind {
			t.Errorf("%s is of kind %v, %v; want %v", c.line, m.kind, err, c.kind)
		}
	}
	for _, line := range []string{"", "x", "[]", `{"event": 1}`, `{"QMP": 1}`} {
		if m, err := decodeMessage([]byte(line)); err == nil {
			t.Errorf("%q is of kind %v", line, m.kind)
		}
	}
}

func TestDecodeEvents(t *testing.T) {
	const (
		full  = `{"event": "BLOCK_IO_ERROR", "data": {"device": "", "node-name": "disk1", "operation": "write", "action": "stop", "nospace": true, "reason": "No space left on device"}}`
		quota = `{"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk0", "operation": "write", "action": "stop", "nospace": false, "reason": "Disk quota exceeded"}}`
		other = `{"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk1", "operation": "read", "action": "report", "nospace": false}}`
		off   = `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`
		odd   = `{"event": "SHUTDOWN", "data": {"reason": 7}}`
	)
	decode := func(line string) message {
		m, err := decodeMessage([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if d, ok := decodeWriteFailure(decode(full).event); !ok || d != (writeFailure{"disk1", true, "no space left on device"}) {
		t.Errorf("%s: %+v, %v", full, d, ok)
	}
	if d, ok := decodeWriteFailure(decode(quota).event); !ok || d != (writeFailure{"disk0", false, "disk quota exceeded"}) {
		t.Errorf("%s: %+v, %v", quota, d, ok)
	}
	for _, line := range []string{other, off} {
		if d, ok := decodeWriteFailure(decode(line).event); ok {
			t.Errorf("%s: %+v", line, d)
		}
	}
	if s, ok := decodeShutdown(decode(off).event); !ok || s.reason != "guest-shutdown" {
		t.Errorf("%s: %+v, %v", off, s, ok)
	}
	if s, ok := decodeShutdown(decode(odd).event); !ok || s.reason != "" {
		t.Errorf("%s: %+v, %v", odd, s, ok)
	}
	if s, ok := decodeShutdown(decode(full).event); ok {
		t.Errorf("%s: %+v", full, s)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(greeting))
	f.Add([]byte(`{"return": {"status": "running"}}`))
	f.Add([]byte(`{"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk1", "action": "stop", "nospace": true}}`))
	f.Add([]byte(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}, "timestamp": {"seconds": 1}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decodeMessage(line)
		if err != nil {
			return
		}
		_, full := decodeWriteFailure(m.event)
		_, off := decodeShutdown(m.event)
		if full && off {
			t.Error("one event is two")
		}
		if (full || off) && m.kind != messageEvent {
			t.Errorf("an event of kind %v", m.kind)
		}
	})
}
