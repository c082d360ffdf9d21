package share

import (
	"testing"
	"time"
)

func TestPendingChanges(t *testing.T) {
	d := &node{}
	at := func(name string) place { return place{d, name} }
	p := newPendingChanges()
	p.add(pendingChange{what: made, from: at("a")})
	p.add(pendingChange{what: made, from: at("b")})
	p.add(pendingChange{what: modified, from: at("a")}) // one with the first
	p.add(pendingChange{what: renamed, from: at("a"), to: at("c")})
	p.add(pendingChange{what: modified, from: at("c")})
	p.add(pendingChange{what: removed, from: at("a")})
	want := []struct {
		what kinds
		name string
	}{{made | modified, "a"}, {made, "b"}, {renamed, "a"}, {modified, "c"}, {removed, "a"}}
	var sizes []int
	for i := 0; i < len(want); {
		select {
		case <-p.ready:
		default:
			t.Fatalf("nobody is told of what is left after %d", i)
		}
		batch := p.take(10)
		sizes = append(sizes, len(batch))
		for _, c := range batch {
			if c.what != want[i].what || c.from.name != want[i].name {
				t.Errorf("change %d is %b of %s", i, c.what, c.from.name)
			}
			i++
		}
	}
	if len(sizes) != 3 { // nothing of an entry that is renamed goes with the rename
		t.Errorf("batches of %v", sizes)
	}
	if batch := p.take(10); len(batch) != 0 || len(p.last) != 0 {
		t.Errorf("%d are left, and %d entries", len(batch), len(p.last))
	}
}

func TestAbsences(t *testing.T) {
	var a absences
	past, future := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	d := &node{}
	if !a.add(place{d, "old"}, past) || !a.add(place{d, "new"}, future) {
		t.Fatal("refused")
	}
	if _, there := a.until[place{d, "old"}]; there || len(a.queue) != 1 {
		t.Errorf("what has ended is kept: %d", len(a.queue))
	}
	for len(a.queue) < maxAbsences {
		a.add(place{d, "again"}, future)
	}
	if a.add(place{d, "more"}, future) {
		t.Error("there is no bound")
	}
}
