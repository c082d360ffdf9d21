package machine

import (
	"context"
	"errors"
	"time"

	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/hint"
)

const (
	// brokenFor is how long a supervisor may take to notice that its VM is gone.
	brokenFor = time.Second
	// endFor is how long a supervisor that ends may take to record why.
	endFor = 5 * time.Second
)

// Explain returns why the VM is gone where err is of a connection to its guest that
// broke, and err where it is of anything else or the VM runs on. Errors of package guest
// pass through it before a user reads them.
func (m *Machine) Explain(ctx context.Context, err error) error {
	dialed := m.dialed.Load()
	if dialed == 0 || !IsCut(err) {
		return err
	}
	if why := m.Ended(ctx, time.Unix(0, dialed)); why != nil {
		return why
	}
	return err // which may be of another connection
}

// Ended says why the VM is gone that was dialed at a moment, and whose
// connections have just broken. It is nil where that cannot be told: the VM
// runs on, or the next one does already.
func (m *Machine) Ended(ctx context.Context, dialed time.Time) error {
	for begin := time.Now(); ; {
		l, err := filelock.TryAcquire(m.path("supervisor.lock"))
		if err == nil {
			l.Release()
		}
		rec := m.Record() // after the lock: its last holder has written it
		switch {
		case rec == nil || rec.Started.After(dialed):
			return nil
		case !rec.Ended.IsZero() || err == nil:
			return rec.end()
		}
		waited := time.Since(begin)
		if waited > endFor {
			return nil
		}
		if st, err := m.Status(ctx); err == nil && !st.Stopping && waited > brokenFor || ctx.Err() != nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// end says how the VM of a record ended, to whom it ended under their hands.
func (r *Record) end() error {
	const again = "the next command starts the VM afresh"
	switch {
	case r.Ended.IsZero():
		return hint.New(errors.New("the supervisor was killed, and its VM with it"), again)
	case r.Forced:
		return hint.New(errors.New("the VM was shut down by force"), again)
	case r.Clean:
		return hint.New(errors.New("the VM was shut down"), again)
	}
	return hint.New(errors.New("the VM died: "+r.Reason), "see 'lsub logs'; "+again)
}
