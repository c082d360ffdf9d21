package machine

import (
	"context"
	"os"

	"github.com/lsub/lsub/filelock"
)

// BeginFirstRun gives the caller the right to run what a distro's FirstRun
// says, which one process has at a time, and returns the distro as it is then:
// another one may have done it meanwhile. waiting, which may be nil, is called
// where another process has the right; the wait ends with ctx. The caller must
// call end.
func (m *Machine) BeginFirstRun(ctx context.Context, d *Distro, waiting func()) (now *Distro, end func(), err error) {
	path := m.path("first-run-" + d.ID + ".lock")
	l, err := filelock.Acquire(ctx, path, waiting)
	if err != nil {
		return nil, nil, err
	}
	id := d.ID // its name may be another by now, and be another's
	r, err := m.Registry()
	if err == nil {
		if now = r.byID(id); now == nil {
			err = errRemoved
		}
	}
	if err != nil {
		l.Release()
		return nil, nil, err
	}
	return now, func() {
		// Who waits for a file that is gone gets its turn all the same, and
		// finds that there is nothing left to do.
		if r, err := m.Registry(); err == nil {
			if d := r.byID(id); d == nil || d.FirstRun == nil {
				os.Remove(path)
			}
		}
		l.Release()
	}, nil
}

// EndFirstRun registers that a distro's FirstRun was done, and the default user
// that it made; user may be "" for none.
func (m *Machine) EndFirstRun(ctx context.Context, id, user string, uid uint32) (*Distro, error) {
	var now Distro
	err := m.Update(ctx, func(r *Registry) error {
		return r.Change(id, func(d *Distro) error {
			d.FirstRun = nil
			if user != "" {
				d.User, d.UID = user, uid
			}
			now = *d
			return nil
		})
	})
	return &now, err
}
