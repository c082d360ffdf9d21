package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/cheggaaa/pb/v3"

	"github.com/lsub/lsub/images"
)

const barTemplate = `{{string . "text"}} {{counters .}} {{bar .}} {{percent .}}`

// progress shows how far long work is: as a bar on a terminal, elsewhere as a
// line for each step.
type progress struct {
	app      *app
	status   *statusLine
	terminal io.Writer // nil where there is none
	plain    io.Writer

	mu       sync.Mutex
	starting bool // a start of the VM was told of
	text     string
	bar      *pb.ProgressBar
}

// newProgress shows the stages of a start of the VM too, until its end.
func (a *app) newProgress() *progress {
	p := &progress{app: a, status: a.status, terminal: a.status.w, plain: a.stderr}
	a.progress.Store(p)
	return p
}

// startStage says what a start of the VM does.
func (a *app) startStage(text string) {
	if p := a.progress.Load(); p != nil {
		p.startStage(text)
	} else {
		a.status.set(text)
	}
}

// startStage takes one line for the start of the VM where each would stay.
func (p *progress) startStage(text string) {
	p.mu.Lock()
	told := p.starting && p.terminal == nil
	p.starting = true
	p.mu.Unlock()
	if !told {
		p.stage(text)
	}
}

// stage says what is being done, where nobody knows how much there is to do.
func (p *progress) stage(text string) { p.step(images.Step{Text: text}) }

// step says how far what is being done is. It is an [images.Progress].
func (p *progress) step(s images.Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Text != p.text {
		p.finish()
		p.text = s.Text
		if p.terminal == nil {
			fmt.Fprintf(p.plain, "lsub: %s\n", s.Text)
		}
	}
	switch {
	case p.terminal == nil:
	case s.Total == 0:
		p.finish()
		text := s.Text
		if s.Bytes && s.Done > 0 {
			text += " " + size(uint64(s.Done))
		}
		p.status.set(text)
	case p.bar == nil:
		p.status.clear()
		p.bar = pb.New64(s.Total).Set("text", s.Text).Set(pb.Bytes, s.Bytes).Set(pb.CleanOnFinish, true).
			SetTemplateString(barTemplate).SetWriter(p.terminal).SetCurrent(s.Done).Start().Write()
	default:
		p.bar.SetTotal(s.Total).SetCurrent(s.Done)
	}
}

func (p *progress) finish() {
	if p.bar != nil {
		p.bar.Finish()
		p.bar = nil
	}
}

// aside calls f while the terminal shows nothing of it. The next step brings it
// back.
func (p *progress) aside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
	p.status.clear()
	f()
}

// end takes it off the terminal.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
	p.status.clear()
	p.app.progress.CompareAndSwap(p, nil)
}

// counter reports how many bytes were written to it: to know what goes through a
// reader or writer, it stands beside it (io.TeeReader, io.MultiWriter).
type counter struct {
	step   images.Step
	report images.Progress
}

func (c *counter) Write(p []byte) (int, error) {
	c.step.Done += int64(len(p))
	if c.step.Total > 0 && c.step.Done > c.step.Total {
		c.step.Total = c.step.Done // it was an estimate
	}
	c.report(c.step)
	return len(p), nil
}
