package machine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lsub/lsub/hint"
)

// Snapshot is what was kept of a distro's files.
type Snapshot struct {
	ID      string    `json:"id"`      // never reused
	Name    string    `json:"name"`    // as [CheckName] wants it
	Created time.Time `json:"created"` // UTC
}

// FindSnapshot returns the distro's snapshot of that name, in any case.
func (d *Distro) FindSnapshot(name string) (*Snapshot, error) {
	names := make([]string, len(d.Snapshots))
	for i := range d.Snapshots {
		if names[i] = d.Snapshots[i].Name; strings.EqualFold(names[i], name) {
			return &d.Snapshots[i], nil
		}
	}
	err := fmt.Errorf("%s has no snapshot %q", d.Name, name)
	switch near := hint.Nearest(name, names); {
	case len(names) == 0:
		return nil, hint.New(err, "it has none; 'lsub snapshot create "+d.Name+"' makes one")
	case near != "":
		return nil, hint.New(err, fmt.Sprintf("did you mean %q?", near))
	}
	return nil, hint.New(err, "'lsub snapshot list "+d.Name+"' shows those there are")
}

// AddSnapshot notes a snapshot of the distro.
func (d *Distro) AddSnapshot(s Snapshot) error {
	if err := CheckName("snapshot", s.Name); err != nil {
		return err
	}
	if _, err := d.FindSnapshot(s.Name); err == nil {
		return hint.New(fmt.Errorf("%s has a snapshot called %q already", d.Name, s.Name),
			"choose another name, or delete it with 'lsub snapshot delete "+d.Name+" "+s.Name+"'")
	}
	d.Snapshots = append(d.Snapshots, s)
	return nil
}

// AdoptSnapshot notes a snapshot of which only the id is known. Its name is what the id was
// made of, or the id where another snapshot has that name.
func (d *Distro) AdoptSnapshot(id string) {
	snap := Snapshot{ID: id, Name: id, Created: time.Now().UTC().Truncate(time.Second)}
	if i := strings.LastIndexByte(id, '-'); i > 0 {
		short := snap
		short.Name = id[:i]
		if d.AddSnapshot(short) == nil {
			return
		}
	}
	d.Snapshots = append(d.Snapshots, snap)
}

// RemoveSnapshot forgets a snapshot of the distro.
func (d *Distro) RemoveSnapshot(id string) error {
	n := len(d.Snapshots)
	d.Snapshots = slices.DeleteFunc(d.Snapshots, func(s Snapshot) bool { return s.ID == id })
	if len(d.Snapshots) == n {
		return errors.New("the snapshot was deleted meanwhile")
	}
	return nil
}
