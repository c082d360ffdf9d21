package machine

import (
	"os"
	"testing"
)

// The right to a distro's first run is the distro's, whatever it is called by
// then and whoever has its name.
func TestFirstRunByID(t *testing.T) {
	m, err := Open(Config{Profile: "default", Paths: Paths{Home: t.TempDir()}, Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	first := Distro{ID: "first-1", Name: "first", FirstRun: &FirstRun{Command: "true"}}
	update := func(change func(*Registry) error) {
		t.Helper()
		if err := m.Update(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	update(func(r *Registry) error { return r.Add(first) })
	// Renamed since first was read, and its name given to another.
	update(func(r *Registry) error {
		if err := r.Rename(first.ID, "renamed"); err != nil {
			return err
		}
		return r.Add(Distro{ID: "other-2", Name: "first"})
	})
	now, end, err := m.BeginFirstRun(t.Context(), &first, nil)
	if err != nil || now.ID != first.ID || now.Name != "renamed" || now.FirstRun == nil {
		t.Fatalf("%+v, %v", now, err)
	}
	update(func(r *Registry) error { return r.Rename(first.ID, "again") })
	if now, err = m.EndFirstRun(t.Context(), first.ID, "ann", 1000); err != nil || now.Name != "again" || now.User != "ann" || now.FirstRun != nil {
		t.Errorf("%+v, %v", now, err)
	}
	end()
	if _, err := os.Stat(m.path("first-run-first-1.lock")); !os.IsNotExist(err) {
		t.Errorf("its lock stays: %v", err)
	}

	// Removed, with another of the name.
	update(func(r *Registry) error {
		r.Remove(first.ID)
		return r.Add(Distro{ID: "third-3", Name: "again", FirstRun: &FirstRun{Command: "true"}})
	})
	if now, _, err := m.BeginFirstRun(t.Context(), &first, nil); err != errRemoved {
		t.Errorf("%+v, %v", now, err)
	}
	if _, err := m.EndFirstRun(t.Context(), first.ID, "", 0); err != errRemoved {
		t.Error(err)
	}
}
