package supervisor

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// TestAgree compares registries with disks. Only what was removed is deleted, and what
// nobody has taken back for long.
func TestAgree(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	record, err := json.Marshal(&machine.Distro{ID: "web-1", Name: "Web", User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	disk := func(id string, snapshots ...string) *guestv1.DistroState {
		return &guestv1.DistroState{Id: id, Snapshots: snapshots, Record: record}
	}
	debian := machine.Distro{ID: "debian-1", Name: "debian", Snapshots: []machine.Snapshot{{ID: "s-1", Name: "s"}}}
	for name, c := range map[string]struct {
		reg       machine.Registry
		disk      []*guestv1.DistroState
		changed   bool
		found     int
		deleted   []string // distros and snapshots
		missing   int
		snapshots []string // names, of debian
		aside     int      // that are unregistered after it
		removed   int      // ids that are to be deleted, still
	}{
		"all agrees":          {reg: machine.Registry{Distros: []machine.Distro{debian}}, disk: []*guestv1.DistroState{disk("debian-1", "s-1")}, snapshots: []string{"s"}},
		"of one command":      {reg: machine.Registry{Distros: []machine.Distro{debian, {ID: "web-1", Ephemeral: true}}}, disk: []*guestv1.DistroState{disk("debian-1", "s-1"), disk("web-1")}, changed: true, deleted: []string{"web-1"}, snapshots: []string{"s"}, removed: 1},
		"an empty registry":   {disk: []*guestv1.DistroState{disk("debian-1"), disk("web-1")}, changed: true, found: 2, aside: 2},
		"an unknown distro":   {reg: machine.Registry{Distros: []machine.Distro{debian}}, disk: []*guestv1.DistroState{disk("debian-1", "s-1"), disk("web-1")}, changed: true, found: 1, snapshots: []string{"s"}, aside: 1},
		"one that is known":   {reg: machine.Registry{Unregistered: []machine.Unregistered{{ID: "web-1", Found: now.Add(-29 * 24 * time.Hour)}}}, disk: []*guestv1.DistroState{disk("web-1")}, aside: 1},
		"for too long":        {reg: machine.Registry{Unregistered: []machine.Unregistered{{ID: "web-1", Found: now.Add(-31 * 24 * time.Hour)}}}, disk: []*guestv1.DistroState{disk("web-1")}, changed: true, deleted: []string{"web-1"}, removed: 1},
		"that is gone":        {reg: machine.Registry{Unregistered: []machine.Unregistered{{ID: "web-1", Found: now}}}, changed: true},
		"a removed distro":    {reg: machine.Registry{Removed: map[string]time.Time{"web-1": now}}, disk: []*guestv1.DistroState{disk("web-1")}, deleted: []string{"web-1"}, removed: 1},
		"that is gone too":    {reg: machine.Registry{Removed: map[string]time.Time{"web-1": now}}, changed: true},
		"an unknown snapshot": {reg: machine.Registry{Distros: []machine.Distro{debian}}, disk: []*guestv1.DistroState{disk("debian-1", "s-1", "before-upgrade-0a", "s-2")}, changed: true, snapshots: []string{"s", "before-upgrade", "s-2"}},
		"a removed snapshot":  {reg: machine.Registry{Distros: []machine.Distro{debian}, Removed: map[string]time.Time{"s-2": now}}, disk: []*guestv1.DistroState{disk("debian-1", "s-1", "s-2")}, deleted: []string{"s-2"}, snapshots: []string{"s"}, removed: 1},
		"a lost disk":         {reg: machine.Registry{Distros: []machine.Distro{debian}}, missing: 2, snapshots: []string{"s"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.reg
			r.Distros = slices.Clone(r.Distros)
			a := agree(&r, &guestv1.InfoResponse{Distros: c.disk}, now)
			deleted := slices.Clone(a.distros)
			for _, snap := range a.snapshots {
				deleted = append(deleted, snap.Id)
			}
			if a.changed != c.changed || len(a.found) != c.found || len(a.missing) != c.missing || !slices.Equal(deleted, c.deleted) {
				t.Errorf("got %+v", a)
			}
			var names []string
			for _, d := range r.Distros {
				for _, snap := range d.Snapshots {
					names = append(names, snap.Name)
				}
			}
			if !slices.Equal(names, c.snapshots) || len(r.Unregistered) != c.aside || len(r.Removed) != c.removed {
				t.Errorf("the registry has the snapshots %q, %v aside, %v to be deleted", names, r.Unregistered, r.Removed)
			}
			for _, u := range a.found {
				if u.Name() != "Web" || u.Distro.User != "ann" || !u.Found.Equal(now) {
					t.Errorf("found %+v", u)
				}
			}
			// Once more changes nothing.
			if again := agree(&r, &guestv1.InfoResponse{Distros: c.disk}, now); again.changed || len(again.found) > 0 {
				t.Errorf("a second look: %+v", again)
			}
		})
	}
	if recorded([]byte("{")) != nil || recorded([]byte(`{"name": "../x"}`)) != nil || recorded(nil) != nil {
		t.Error("a record that makes no sense is taken")
	}
}
