package machine

import (
	"context"
	"testing"
	"time"
)

// A shutdown has done its work when another command has started the next VM meanwhile,
// whose supervisor holds the lock.
func TestAwaitEnd(t *testing.T) {
	m, _ := openTest(t)
	if err := m.MakeDir(); err != nil {
		t.Fatal(err)
	}
	before := &Record{Started: time.Now().UTC().Add(-time.Minute)}
	if err := m.awaitEnd(t.Context(), before); err != nil {
		t.Errorf("nobody holds the lock: %v", err)
	}
	unlock, err := m.LockSupervisor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := m.WriteRecord(before); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.awaitEnd(ctx, before); err == nil {
		t.Error("the supervisor that is to end holds the lock")
	}
	if err := m.WriteRecord(&Record{Started: time.Now().UTC()}); err != nil {
		t.Fatal(err)
	}
	if err := m.awaitEnd(t.Context(), before); err != nil {
		t.Errorf("the next supervisor holds it: %v", err)
	}
}
