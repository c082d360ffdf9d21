package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/hint"
)

const (
	// BootTimeout bounds the way from the power-on to the agent's first word.
	// Emulated on a busy machine it takes some 10 s.
	BootTimeout = 2 * time.Minute
	// TakeoverTimeout is how long a supervisor waits for the one before it to end.
	TakeoverTimeout = shutdownTimeout
	// startTimeout covers both and what is done between.
	startTimeout = TakeoverTimeout + BootTimeout + 30*time.Second
	// maxLog is the size in bytes at which supervisor.log is put aside.
	maxLog = 1 << 20
)

// Start starts the VM where it is off, and returns when its guest serves. Of
// several commands that start it at once, one does and the others wait. When
// ctx is done, Start returns and the VM goes on starting.
func (m *Machine) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errSilent())
	defer cancel()
	if err := m.MakeDir(); err != nil {
		return err
	}
	l, err := filelock.Acquire(ctx, m.path("start.lock"), func() { m.cfg.Progress("waiting for another command that starts the VM") })
	if err != nil {
		return callError(ctx, err)
	}
	defer l.Release()
	switch st, err := m.Status(ctx); {
	case err == nil && !st.Stopping:
		return nil // the other command did
	case err == nil:
		m.cfg.Progress("waiting for the last VM to end")
	case !errors.Is(err, ErrNotRunning):
		return err
	}
	return m.launch(ctx)
}

// launch runs a supervisor in the background, and waits until it has reported.
func (m *Machine) launch(ctx context.Context) error {
	logPath := m.SupervisorLog()
	if fi, err := os.Stat(logPath); err == nil && fi.Size() > maxLog {
		os.Rename(logPath, logPath+".old")
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	var begin int64
	if fi, err := log.Stat(); err == nil {
		begin = fi.Size()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	m.cfg.Progress("starting the VM")
	err = spawn(m.cfg.Supervisor, log, w)
	w.Close()
	if err != nil {
		r.Close()
		return fmt.Errorf("start the supervisor: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		defer r.Close()
		done <- m.Follow(r)
	}()
	select {
	case err := <-done:
		if errors.Is(err, io.EOF) {
			err = errors.New("the supervisor ended before it had started the VM")
			if tail := Tail(logPath, 5, begin); tail != "" {
				err = fmt.Errorf("%w; it said:\n%s", err, tail)
			}
			return hint.New(err, "see 'lsub logs'")
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// report is a line of what a supervisor tells the command that started it.
type report struct {
	Stage string `json:"stage,omitempty"`
	Note  string `json:"note,omitempty"`
	Warn  string `json:"warn,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// Follow reads reports to the last one.
func (m *Machine) Follow(r io.Reader) error {
	for d := json.NewDecoder(bufio.NewReader(r)); ; {
		var rep report
		if err := d.Decode(&rep); err != nil {
			return io.EOF
		}
		switch {
		case rep.Error != "" && rep.Hint != "":
			return hint.New(errors.New(rep.Error), rep.Hint)
		case rep.Error != "":
			return errors.New(rep.Error)
		case rep.Done:
			return nil
		case rep.Note != "":
			m.cfg.Notice(rep.Note)
		case rep.Warn != "":
			m.cfg.Warn(rep.Warn)
		case rep.Stage != "":
			m.cfg.Progress(rep.Stage)
		}
	}
}

// Reporter tells the command that started a supervisor how the start goes. A
// nil Reporter tells nobody. It is safe for concurrent use.
type Reporter struct {
	mu sync.Mutex
	f  *os.File // nil once the start has ended
}

// NewReporter reports to f, which the flag --ready-fd names, and closes it at the end.
func NewReporter(f *os.File) *Reporter { return &Reporter{f: f} }

// Warn reports what a start that goes on has to do without.
func (r *Reporter) Warn(text string) { r.send(report{Warn: text}) }

// Note says what became of the VM before.
func (r *Reporter) Note(text string) { r.send(report{Note: text}) }

// Stage says what is being done.
func (r *Reporter) Stage(text string) { r.send(report{Stage: text}) }

// Finish says how the start ended. The first call counts.
func (r *Reporter) Finish(err error) {
	rep := report{Done: true}
	if err != nil {
		rep.Error, rep.Hint = err.Error(), hint.Of(err)
	}
	r.send(rep)
}

func (r *Reporter) send(rep report) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return
	}
	if b, err := json.Marshal(rep); err == nil {
		r.f.Write(append(b, '\n')) // the command may be gone, which is its affair
	}
	if rep.Done {
		r.f.Close()
		r.f = nil
	}
}
