package distro

import (
	"sync"

	"github.com/lsub/lsub/images"
)

// Events hears what an operation does. Its methods are called from the goroutine of the
// operation or one at a time beside it, and have to return soon. They are safe for
// concurrent use where the Service is used concurrently.
type Events interface {
	// Progress tells what is being done. A Step without a text ends the one before.
	Progress(Step)
	// Note tells in a line what the user may want to know.
	Note(text string)
	// Warn tells in a line what went wrong, where the operation goes on.
	Warn(text string)
}

// Step is a part of an operation that is under way.
type Step struct {
	Text        string // such as "unpacking"
	Brief       bool   // it is usually over before anybody has read of it
	Done, Total int64  // how far it is; a Total of 0 is unknown
	Bytes       bool   // Done and Total are bytes
}

// silent is the Events of those who want none.
type silent struct{}

func (silent) Progress(Step) {}
func (silent) Note(string)   {}
func (silent) Warn(string)   {}

// Quiet returns the same Service without progress.
func (s *Service) Quiet() *Service { return s.With(noProgress{s.events}) }

// noProgress passes on what is worth a line.
type noProgress struct{ Events }

func (noProgress) Progress(Step) {}

// step tells what is being done until done is called.
func (s *Service) step(text string) (done func()) {
	s.events.Progress(Step{Text: text})
	return s.done
}

// done tells that nothing is being done any more.
func (s *Service) done() { s.events.Progress(Step{}) }

// imageProgress tells how far an operation of package images is.
func (s *Service) imageProgress(p images.Step) {
	s.events.Progress(Step{Text: p.Text, Done: p.Done, Total: p.Total, Bytes: p.Bytes})
}

// warnOf warns of what is wrong in a distro.
func (s *Service) warnOf(name string, warnings []string) {
	for _, w := range warnings {
		s.events.Warn(name + ": " + w)
	}
}

// counter tells how many bytes were written to it. It stands beside a reader or writer
// (io.TeeReader, io.MultiWriter) to count what goes through that.
type counter struct {
	report func(Step)

	mu   sync.Mutex
	step Step
}

// total says how many bytes will come, once that is known.
func (c *counter) total(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step.Total = n
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step.Done += int64(len(p))
	if c.step.Total > 0 && c.step.Done > c.step.Total {
		c.step.Total = c.step.Done // it was an estimate
	}
	c.report(c.step)
	return len(p), nil
}
